#include "base/suggest.h"

#include <gtest/gtest.h>

namespace limner {
namespace {

TEST(Nearest, OrdersByEditDistanceAndLeavesOutTheFar) {
  const std::vector<std::string> known = {"ddim", "euler_a", "euler", "heun"};
  EXPECT_EQ(nearest("eular", known).front(), "euler");
  EXPECT_TRUE(nearest("completely_different", known).empty());
}

TEST(Nearest, SurvivesHugeNames) {
  const std::vector<std::string> known = {"euler"};
  EXPECT_EQ(did_you_mean(std::string(1'000'000, 'x'), known), "");
}

}  // namespace
}  // namespace limner
