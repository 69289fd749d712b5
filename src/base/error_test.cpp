#include "base/error.h"

#include <gtest/gtest.h>

namespace limner {
namespace {

TEST(Result, HoldsAValueOrAnError) {
  Result<int> good = 7;
  EXPECT_TRUE(good.ok());
  EXPECT_EQ(*good, 7);
  Result<int> bad = Error{ErrorCode::kNotFound, "no such model"};
  EXPECT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code, ErrorCode::kNotFound);
  EXPECT_THROW(std::move(bad).value_or_throw(), Failure);
}

TEST(Result, ReadingTheMissingSideAborts) {
  Result<int> bad = Error{ErrorCode::kIo, "disk full"};
  EXPECT_DEATH(static_cast<void>(bad.value()), "disk full");
}

TEST(ErrorCode, NamesAreSnakeCase) {
  EXPECT_EQ(name(ErrorCode::kOutOfMemory), "out_of_memory");
  EXPECT_EQ(name(ErrorCode::kInternal), "internal");
}

}  // namespace
}  // namespace limner
