#include "runpod/control_plane.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runpod/fitness.h"
#include "runpod/platform_log.h"
#include "runpod/testing.h"

namespace limner::runpod {
namespace {

using testing::ScriptedPlatform;
using Answers = std::vector<ScriptedPlatform::Answer>;

class ControlPlaneTest : public ::testing::Test {
 protected:
  ScriptedPlatform platform_;
  ControlPlane plane_{read_settings(testing::environment()).value(), testing::short_waits(),
                      platform_};
};

bool has(const std::vector<std::string>& lines, const std::string& line) {
  return std::ranges::find(lines, line) != lines.end();
}

TEST_F(ControlPlaneTest, TakesOneJobWithTheUrlOfThePlatform) {
  platform_.answer("/job-take/", {{200, R"({"id":"a","input":{"prompt":"x"},"webhook":"w"})"}});
  const auto taken = plane_.take(1, false, {});
  ASSERT_TRUE(taken.ok()) << taken.error().message;
  ASSERT_EQ(taken->jobs.size(), 1u);
  EXPECT_EQ(taken->jobs[0].id, "a");
  EXPECT_EQ(taken->jobs[0].input["prompt"], "x");
  const auto calls = platform_.calls("/job-take/");
  EXPECT_EQ(calls[0].target, "/v2/ep/job-take/pod-1?gpu=A&job_in_progress=0");
  EXPECT_TRUE(has(calls[0].headers, "Authorization: secret"));
}

TEST_F(ControlPlaneTest, TakesABatchWhereMoreThanOneSlotIsFree) {
  platform_.answer("/job-take-batch/",
                   {{200, R"([{"id":"a","input":{}},{"id":"b"},{"input":{}}])"}});
  const auto taken = plane_.take(3, true, {});
  ASSERT_TRUE(taken.ok()) << taken.error().message;
  ASSERT_EQ(taken->jobs.size(), 2u);
  EXPECT_FALSE(taken->jobs[0].wrong);
  EXPECT_TRUE(taken->jobs[1].wrong);
  EXPECT_TRUE(taken->problem);
  EXPECT_EQ(platform_.calls("/job-take-batch/")[0].target,
            "/v2/ep/job-take-batch/pod-1?gpu=A&batch_size=3&job_in_progress=1");
}

TEST_F(ControlPlaneTest, AnswersWithoutAJobBringNothing) {
  platform_.answer("/job-take/",
                   {{204}, {400, "FlashBoot"}, {200, ""}, {200, "hello", "text/plain"}});
  for (int i = 0; i < 4; ++i) {
    const auto taken = plane_.take(1, false, {});
    ASSERT_TRUE(taken.ok()) << i << taken.error().message;
    EXPECT_TRUE(taken->jobs.empty());
    EXPECT_EQ(taken->wait.count(), 0);
  }
}

TEST_F(ControlPlaneTest, ABusyPlatformIsWaitedForAndOtherAnswersAreErrors) {
  platform_.answer("/job-take/", {{429}, {500}, {401}, {200, "{"}, {200, R"({"input":{}})"}});
  EXPECT_EQ(plane_.take(1, false, {})->wait, testing::short_waits().busy);
  EXPECT_EQ(plane_.take(1, false, {}).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(plane_.take(1, false, {}).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(plane_.take(1, false, {}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(plane_.take(1, false, {}).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(ControlPlaneTest, SendsResultsAsAFormThatHoldsJson) {
  EXPECT_EQ(plane_.send_result("j-1", R"({"output":1})", true), Delivery::kDelivered);
  const auto call = platform_.calls("/job-done/")[0];
  EXPECT_EQ(call.method, "POST");
  EXPECT_EQ(call.target, "/v2/ep/job-done/pod-1/j-1?gpu=A&isStream=true");
  EXPECT_EQ(call.body, R"({"output":1})");
  EXPECT_TRUE(has(call.headers, "Content-Type: application/x-www-form-urlencoded"));
  EXPECT_TRUE(has(call.headers, "charset: utf-8"));
  EXPECT_TRUE(has(call.headers, "X-Request-ID: j-1"));
}

TEST_F(ControlPlaneTest, TellsHowADeliveryEnded) {
  platform_.answer("/job-done/", {{200}, {400}, {404}, {429}, {503}, {0}});
  const auto send = [&] { return plane_.send_result("j", "{}", false); };
  EXPECT_EQ(send(), Delivery::kDelivered);
  EXPECT_EQ(send(), Delivery::kRefused);
  EXPECT_EQ(send(), Delivery::kGone);
  EXPECT_EQ(send(), Delivery::kLater);
  EXPECT_EQ(send(), Delivery::kLater);
  EXPECT_EQ(send(), Delivery::kLater);
}

TEST_F(ControlPlaneTest, ProgressGoesToTheResultsUrl) {
  plane_.send_progress("j", {{"step", 2}});
  const auto call = platform_.calls("/job-done/")[0];
  EXPECT_EQ(nlohmann::json::parse(call.body),
            nlohmann::json::parse(R"({"status":"IN_PROGRESS","output":{"step":2}})"));
  EXPECT_TRUE(call.target.ends_with("&isStream=false"));
}

TEST_F(ControlPlaneTest, PingsNameTheJobsAndTryAgain) {
  platform_.answer("/ping/", {{503}, {200}});
  EXPECT_TRUE(plane_.ping({"a", "b"}, {}));
  const auto calls = platform_.calls("/ping/");
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].target,
            "/v2/ep/ping/pod-1?job_id=a%2Cb&runpod_version=limner-" LIMNER_VERSION);
  EXPECT_TRUE(plane_.ping({}, {}));
  EXPECT_EQ(platform_.calls("/ping/")[2].target,
            "/v2/ep/ping/pod-1?runpod_version=limner-" LIMNER_VERSION);
}

TEST_F(ControlPlaneTest, AsksForJobsToStop) {
  platform_.answer("/job-stop/", {{200, R"({"jobsToStop":["a","b"]})"}, {200, "{}"}, {204}, {429}});
  EXPECT_EQ(plane_.jobs_to_stop({})->jobs, (std::vector<std::string>{"a", "b"}));
  EXPECT_GT(plane_.jobs_to_stop({})->wait.count(), 0);
  EXPECT_EQ(plane_.jobs_to_stop({})->wait.count(), 0);
  EXPECT_EQ(plane_.jobs_to_stop({})->wait, testing::short_waits().busy);
  EXPECT_EQ(platform_.calls("/job-stop/")[0].target, "/v2/ep/job-stop/pod-1?gpu=A");
}

TEST(RunpodSettings, NameTheVariableThatIsWrong) {
  Environment environment = testing::environment();
  environment["RUNPOD_PING_INTERVAL"] = "soon";
  EXPECT_NE(read_settings(environment).error().message.find("RUNPOD_PING_INTERVAL"),
            std::string::npos);
  environment["RUNPOD_PING_INTERVAL"] = "4500";
  EXPECT_EQ(read_settings(environment)->ping_interval.count(), 4000);
  environment.erase("RUNPOD_WEBHOOK_POST_OUTPUT");
  EXPECT_FALSE(read_settings(environment).ok());
  EXPECT_EQ(read_settings({})->worker_id.size(), 36u);
}

TEST(RunpodFitness, NamesTheCheckThatFails) {
  FitnessRules rules = read_fitness_rules({{"RUNPOD_MIN_MEMORY_GB", "900000"}}).value();
  EXPECT_EQ(find_unfit(rules, "/tmp")->check, "memory");
  rules = {.memory_gb = 0, .disk_percent = 101};
  EXPECT_EQ(find_unfit(rules, "/tmp")->check, "disk");
  rules.skip = true;
  EXPECT_FALSE(find_unfit(rules, "/tmp"));
  EXPECT_FALSE(read_fitness_rules({{"RUNPOD_MIN_MEMORY_GB", "much"}}).ok());
}

TEST(RunpodLog, WritesThePlatformsLines) {
  const std::vector<LogField> fields = {{"request_id", std::string_view("j")},
                                        {"seconds", std::int64_t{2}}};
  EXPECT_EQ(
      nlohmann::json::parse(PlatformLog::render(true, LogLevel::kInfo, "done", fields)),
      nlohmann::json::parse(R"({"requestId":"j","message":"done seconds=2","level":"INFO"})"));
  EXPECT_EQ(PlatformLog::render(false, LogLevel::kError, "bad", fields),
            "ERROR | j | bad seconds=2\n");
  EXPECT_LE(PlatformLog::render(false, LogLevel::kInfo, std::string(9000, 'x'), {}).size(), 4120u);
}

}  // namespace
}  // namespace limner::runpod
