#include "cli/console.h"

#include <gtest/gtest.h>

namespace limner::cli {
namespace {

TEST(Console, ErrorsMapToTheDocumentedExitCodes) {
  EXPECT_EQ(exit_code(ErrorCode::kInvalidArgument), 2);
  EXPECT_EQ(exit_code(ErrorCode::kInvalidModel), 1);
  EXPECT_EQ(exit_code(ErrorCode::kOutOfMemory), 1);
  EXPECT_EQ(exit_code(ErrorCode::kBlocked), 3);
  EXPECT_EQ(exit_code(ErrorCode::kCancelled), 130);
}

TEST(Console, AJsonErrorIsOneObjectEvenForBrokenText) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(Console({.json = true}).fail({ErrorCode::kNotFound, "no \"model\" \xff"}), 1);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "{\"error\":{\"code\":\"not_found\",\"message\":\"no \\\"model\\\" \xEF\xBF\xBD\"}}\n");
}

TEST(HumanNumbers, ReadWell) {
  EXPECT_EQ(human_duration(3.21), "3.2 s");
  EXPECT_EQ(human_duration(65), "1:05 min");
  EXPECT_EQ(human_duration(7389), "2:03:09 h");
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(14'890'000), "14.2 MiB");
}

}  // namespace
}  // namespace limner::cli
