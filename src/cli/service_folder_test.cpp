#include "cli/service_folder.h"

#include <gtest/gtest.h>

namespace limner::cli {
namespace {

using std::chrono::hours;

TEST(Duration, IsACountAndAUnit) {
  EXPECT_EQ(*parse_duration("90d"), hours(90 * 24));
  EXPECT_EQ(*parse_duration("24h"), hours(24));
  EXPECT_EQ(*parse_duration("30m"), std::chrono::minutes(30));
  EXPECT_EQ(*parse_duration("45s"), std::chrono::seconds(45));
  EXPECT_EQ(*parse_duration("36525d"), hours(36'525 * 24));
}

TEST(Duration, RefusesTheRestInASentence) {
  for (const char* text : {"", "d", "90", "0d", "-1d", "1.5h", "90 d", "90d ", "1w", "36526d",
                           "99999999999999999999d", "1dd"}) {
    const auto parsed = parse_duration(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(parsed.error().message.find("90d, 24h, 30m or 45s"), std::string::npos);
  }
}

TEST(ShownTime, IsUtcToTheMinute) {
  EXPECT_EQ(shown_time(0), "-");
  EXPECT_EQ(shown_time(951'782'400'000), "2000-02-29 00:00");
}

TEST(ServiceDatabase, IsNotMadeForACommandThatOnlyReads) {
  const auto file =
      service_database({.file = {}, .data_dir = "/no/such/folder", .host = {}, .port = {}}, false);
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, ErrorCode::kNotFound);
  EXPECT_NE(file.error().message.find("'/no/such/folder'"), std::string::npos);
}

TEST(CommandLineActor, NamesTheUser) {
  EXPECT_TRUE(command_line_actor().starts_with("cli:"));
  EXPECT_GT(command_line_actor().size(), 4u);
}

}  // namespace
}  // namespace limner::cli
