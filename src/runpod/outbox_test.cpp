#include "runpod/outbox.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runpod/testing.h"
#include "worker/testing.h"

namespace limner::runpod {
namespace {

using nlohmann::json;
using testing::milliseconds;
using testing::ScriptedPlatform;

class OutboxTest : public ::testing::Test {
 protected:
  OutboxTest() {
    options_.first_delay = milliseconds(5);
    options_.max_delay = milliseconds(20);
    options_.folder = folder_.path();
  }
  Outbox& outbox() {
    if (!outbox_) outbox_ = std::make_unique<Outbox>(plane_, options_, log_);
    return *outbox_;
  }
  static json large(char of) { return {{"output", std::string(1'000, of)}}; }
  std::size_t sent() const { return platform_.calls("/job-done/").size(); }

  worker::testing::TemporaryFolder folder_;
  NoLog log_;
  ScriptedPlatform platform_;
  ControlPlane plane_{read_settings(testing::environment()).value(), testing::short_waits(),
                      platform_};
  OutboxOptions options_;
  std::unique_ptr<Outbox> outbox_;
};

TEST_F(OutboxTest, WhatWaitsBeyondItsMemoryWaitsOnTheDiskAndIsSentAllTheSame) {
  options_.most_in_memory = 1'500;
  platform_.answer("/job-done/", {{500}});
  for (const char job : {'a', 'b', 'c'}) outbox().result(std::string(1, job), large(job), false);
  EXPECT_EQ(outbox().undelivered().size(), 3u);
  // Nothing is left on the disk by a process that is killed: the files have no names.
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  platform_.answer("/job-done/", {{200}});
  ASSERT_TRUE(outbox().wait_until_empty(milliseconds(5'000)));
  for (const char job : {'a', 'b', 'c'}) {
    EXPECT_EQ(platform_.results(std::string(1, job)), std::vector<json>{large(job)});
  }
}

TEST_F(OutboxTest, ADiskThatCannotBeWrittenCostsNoResult) {
  options_.most_in_memory = 0;
  options_.folder = folder_.path() / "absent";
  outbox().result("a", large('a'), false);
  ASSERT_TRUE(outbox().wait_until_empty(milliseconds(5'000)));
  EXPECT_EQ(platform_.results("a"), std::vector<json>{large('a')});
}

TEST_F(OutboxTest, AResultThatIsNotTakenGoesToStorageAndItsUrlIsTheResult) {
  std::string stored;
  options_.store = [&](const std::string& job, const std::string& result) {
    stored = result;
    return Result<std::string>("https://bucket.example/" + job);
  };
  platform_.answer("/job-done/", {{413}, {413}, {413}, {200}});
  json body = large('a');
  body["stopPod"] = true;
  outbox().result("a", body, false);
  ASSERT_TRUE(outbox().wait_until_empty(milliseconds(5'000)));
  const json told = platform_.results("a").at(0);
  EXPECT_EQ(told["output"]["result_url"], "https://bucket.example/a");
  EXPECT_EQ(told["stopPod"], true);
  EXPECT_EQ(json::parse(stored), body);
}

TEST_F(OutboxTest, WhereTheStorageFailsTooTheErrorNamesBoth) {
  options_.store = [](const std::string&, const std::string&) {
    return Result<std::string>(Error{ErrorCode::kUnavailable, "the bucket is away"});
  };
  platform_.answer("/job-done/", {{413}, {413}, {413}, {200}});
  outbox().result("a", large('a'), false);
  ASSERT_TRUE(outbox().wait_until_empty(milliseconds(5'000)));
  const json error = json::parse(platform_.results("a").at(0)["error"].get<std::string>());
  EXPECT_EQ(error["code"], "result_refused");
  const std::string message = error["error_message"];
  EXPECT_NE(message.find("3 times"), std::string::npos) << message;
  EXPECT_NE(message.find("the bucket is away"), std::string::npos) << message;
}

TEST_F(OutboxTest, AKeyThatIsRefusedForAWhileCostsNoResult) {
  platform_.answer("/job-done/", {{401}, {403}, {401}, {403}, {401}, {200}});
  outbox().result("a", large('a'), false);
  ASSERT_TRUE(outbox().wait_until_empty(milliseconds(5'000)));
  EXPECT_EQ(platform_.results("a"), std::vector<json>{large('a')});
}

TEST_F(OutboxTest, WhatIsWithdrawnIsNotSentAgain) {
  options_.max_delay = options_.first_delay = milliseconds(2'000);
  platform_.answer("/job-done/", {{500}});
  outbox().result("a", large('a'), false);
  ASSERT_TRUE(platform_.soon([&] { return sent() == 1; }));
  outbox().withdraw("a");
  EXPECT_TRUE(outbox().wait_until_empty(milliseconds(1'000)));
  outbox().withdraw("unknown");
  EXPECT_EQ(sent(), 1u);
}

TEST_F(OutboxTest, OneJobThatIsNotTakenDoesNotHoldUpTheOthers) {
  platform_.answer("/job-done/pod-1/a", {{500}});
  outbox().result("a", large('a'), false);
  outbox().result("b", large('b'), false);
  EXPECT_TRUE(
      platform_.soon([&] { return outbox().undelivered() == std::vector<std::string>{"a"}; }));
  EXPECT_EQ(platform_.results("b").size(), 1u);
}

TEST_F(OutboxTest, APictureThatIsTooLargeForAStreamIsNamedThere) {
  options_.most_partial = 100;
  outbox().partial("a", {{"index", 0}, {"image", std::string(200, 'x')}});
  ASSERT_TRUE(outbox().wait_until_empty(milliseconds(5'000)));
  const json note = json::parse(platform_.calls("/job-stream/").at(0).body)["output"];
  EXPECT_EQ(note["index"], 0);
  EXPECT_FALSE(note.contains("image"));
  EXPECT_TRUE(note.contains("left_out"));
}

}  // namespace
}  // namespace limner::runpod
