#include "runpod/endpoint.h"

#include <gtest/gtest.h>

namespace limner::runpod {
namespace {

using nlohmann::json;
using platform::Millis;
using namespace std::chrono_literals;

class EndpointTest : public ::testing::Test {
 protected:
  std::string submit(bool sync = false, RunRequest request = {}) {
    request.input = {{"prompt", "a red circle"}};
    return endpoint_.submit(std::move(request), sync);
  }
  std::string taken(RunRequest request = {}) {
    const std::string id = submit(false, std::move(request));
    EXPECT_EQ(endpoint_.take("w", 1).size(), 1u);
    return id;
  }
  std::string state(const std::string& id) {
    const auto status = endpoint_.status(id);
    return status.ok() ? status->at("status").get<std::string>() : "forgotten";
  }
  void finish(const std::string& id, json body = {{"output", 1}}, const char* worker = "w") {
    EXPECT_TRUE(endpoint_.done(worker, id, body).ok());
  }
  static RunRequest with_webhook() {
    return {.input = {}, .webhook = "https://client.example/hook"};
  }

  platform::ManualClock clock_;
  int changes_ = 0;
  Endpoint endpoint_{{.changed = [this] { ++changes_; }}, clock_};
};

// The answers of docs.runpod.io (serverless/endpoints/operation-reference), without `workerId`.
TEST_F(EndpointTest, ShowsAJobAsThePlatformDoes) {
  const std::string id = submit();
  EXPECT_EQ(*endpoint_.status(id), (json{{"id", id}, {"status", "IN_QUEUE"}}));
  clock_.advance(31s);
  const auto jobs = endpoint_.take("w", 1);
  EXPECT_EQ(jobs, (std::vector<json>{{{"id", id}, {"input", {{"prompt", "a red circle"}}}}}));
  EXPECT_EQ(*endpoint_.status(id),
            (json{{"id", id}, {"status", "IN_PROGRESS"}, {"delayTime", 31000}}));
  clock_.advance(1500ms);
  finish(id, {{"output", {{"images", {"QUJD"}}}}});
  EXPECT_EQ(*endpoint_.status(id), (json{{"id", id},
                                         {"status", "COMPLETED"},
                                         {"delayTime", 31000},
                                         {"executionTime", 1500},
                                         {"output", {{"images", {"QUJD"}}}}}));
}

TEST_F(EndpointTest, GivesJobsInTheirOrderAndNoMoreThanAskedFor) {
  const std::string first = submit(), second = submit(), third = submit();
  const auto two = endpoint_.take("w", 2);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[0]["id"], first);
  EXPECT_EQ(two[1]["id"], second);
  EXPECT_EQ(endpoint_.take("other", 9).at(0)["id"], third);
  EXPECT_TRUE(endpoint_.take("w", 1).empty());
}

TEST_F(EndpointTest, AnErrorMakesAJobFail) {
  const std::string id = taken();
  finish(id, {{"error", "prompt is wanted"}});
  EXPECT_EQ(state(id), "FAILED");
  EXPECT_EQ(endpoint_.status(id)->at("error"), "prompt is wanted");
}

TEST_F(EndpointTest, ProgressIsTheOutputOfARunningJob) {
  const std::string id = taken();
  finish(id, {{"status", "IN_PROGRESS"}, {"output", {{"step", 3}}}});
  EXPECT_EQ(state(id), "IN_PROGRESS");
  EXPECT_EQ(endpoint_.status(id)->at("output"), (json{{"step", 3}}));
  finish(id, {{"error", "memory ran out"}});
  EXPECT_FALSE(endpoint_.status(id)->contains("output"));
}

TEST_F(EndpointTest, AStreamGivesEachPartialOnceAndThenTheFinalState) {
  const std::string id = taken();
  ASSERT_TRUE(endpoint_.partial("w", id, {{"output", 1}}).ok());
  ASSERT_TRUE(endpoint_.partial("w", id, {{"output", {{"index", 2}}}}).ok());
  EXPECT_EQ(*endpoint_.stream(id),
            (json{{"status", "IN_PROGRESS"},
                  {"stream", {json{{"output", 1}}, json{{"output", json{{"index", 2}}}}}}}));
  finish(id);
  EXPECT_EQ(*endpoint_.stream(id), (json{{"status", "COMPLETED"}, {"stream", json::array()}}));
}

TEST_F(EndpointTest, CancelsWhatWaitsAtOnceAndTellsTheWorkerOfWhatRuns) {
  const std::string running = taken(), waiting = submit();
  EXPECT_EQ(*endpoint_.cancel(waiting), (json{{"id", waiting}, {"status", "CANCELLED"}}));
  EXPECT_TRUE(endpoint_.jobs_to_stop("w").empty());
  EXPECT_EQ(endpoint_.cancel(running)->at("status"), "CANCELLED");
  EXPECT_TRUE(endpoint_.jobs_to_stop("other").empty());
  EXPECT_EQ(endpoint_.jobs_to_stop("w"), std::vector<std::string>{running});
  EXPECT_TRUE(endpoint_.jobs_to_stop("w").empty());
  finish(running);
  EXPECT_EQ(state(running), "CANCELLED");
  EXPECT_TRUE(endpoint_.take("w", 9).empty());
}

TEST_F(EndpointTest, CancellingWhatHasEndedChangesNothing) {
  const std::string id = taken();
  finish(id);
  EXPECT_EQ(endpoint_.cancel(id)->at("status"), "COMPLETED");
  EXPECT_TRUE(endpoint_.jobs_to_stop("w").empty());
}

TEST_F(EndpointTest, OnlyTheWorkerThatHasAJobEndsIt) {
  const std::string id = taken();
  finish(id, {{"output", 1}}, "other");
  EXPECT_EQ(state(id), "IN_PROGRESS");
  finish(id, {{"output", 2}});
  finish(id, {{"output", 3}});
  EXPECT_EQ(endpoint_.status(id)->at("output"), 2);
}

TEST_F(EndpointTest, RetriesFailedJobsUnderTheirOwnNames) {
  const std::string id = taken();
  EXPECT_EQ(endpoint_.retry(id).error().code, ErrorCode::kInvalidArgument);
  finish(id, {{"error", "not this time"}});
  EXPECT_EQ(*endpoint_.retry(id), (json{{"id", id}, {"status", "IN_QUEUE"}}));
  EXPECT_EQ(*endpoint_.status(id), (json{{"id", id}, {"status", "IN_QUEUE"}}));
  EXPECT_EQ(endpoint_.take("w", 1).at(0)["id"], id);
  finish(id);
  EXPECT_EQ(state(id), "COMPLETED");
  EXPECT_EQ(endpoint_.retry(id).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(EndpointTest, PurgingLeavesWhatRuns) {
  const std::string running = taken(), one = submit(), other = submit();
  EXPECT_EQ(endpoint_.purge_queue(), (json{{"removed", 2}, {"status", "completed"}}));
  EXPECT_EQ(state(running), "IN_PROGRESS");
  EXPECT_EQ(state(one), "CANCELLED");
  EXPECT_TRUE(endpoint_.take("w", 9).empty());
}

TEST_F(EndpointTest, CountsJobsAndWorkers) {
  EXPECT_EQ(endpoint_.health()["workers"]["initializing"], 1);
  endpoint_.ping("w", true);
  EXPECT_EQ(endpoint_.health()["workers"], (json{{"idle", 1},
                                                 {"initializing", 0},
                                                 {"ready", 1},
                                                 {"running", 0},
                                                 {"throttled", 0},
                                                 {"unhealthy", 0}}));
  const std::string failing = taken(), running = taken();
  finish(failing, {{"error", "x"}});
  EXPECT_TRUE(endpoint_.retry(failing).ok());
  submit();
  endpoint_.ping("sick", false);
  const json health = endpoint_.health();
  EXPECT_EQ(
      health["jobs"],
      (json{{"completed", 0}, {"failed", 1}, {"inProgress", 1}, {"inQueue", 2}, {"retried", 1}}));
  EXPECT_EQ(health["workers"]["running"], 1);
  EXPECT_EQ(health["workers"]["idle"], 0);
  EXPECT_EQ(health["workers"]["unhealthy"], 1);
}

TEST_F(EndpointTest, AJobThatRunsTooLongTimesOut) {
  RunRequest request;
  request.execution_timeout = 5s;
  clock_.advance(1h);
  const std::string id = taken(request);
  EXPECT_EQ(*endpoint_.next_due(), clock_.now() + 5s);
  clock_.advance(4999ms);
  EXPECT_EQ(state(id), "IN_PROGRESS");
  clock_.advance(1ms);
  EXPECT_EQ(endpoint_.jobs_to_stop("w"), std::vector<std::string>{id});
  EXPECT_EQ(state(id), "TIMED_OUT");
  EXPECT_EQ(endpoint_.status(id)->at("executionTime"), 5000);
  EXPECT_TRUE(endpoint_.retry(id).ok());
}

TEST_F(EndpointTest, TheTtlForgetsAJobInAnyState) {
  RunRequest request;
  request.ttl = 10s;
  const std::string running = taken(request), ended = taken(request),
                    waiting = submit(false, request);
  finish(ended);
  clock_.advance(9999ms);
  EXPECT_EQ(state(waiting), "IN_QUEUE");
  EXPECT_EQ(state(ended), "COMPLETED");
  clock_.advance(1ms);
  for (const std::string& id : {running, ended, waiting}) EXPECT_EQ(state(id), "forgotten");
  EXPECT_EQ(endpoint_.jobs_to_stop("w"), std::vector<std::string>{running});
  EXPECT_TRUE(endpoint_.take("w", 9).empty());
  EXPECT_EQ(endpoint_.done("w", running, {{"output", 1}}).error().code, ErrorCode::kNotFound);
}

TEST_F(EndpointTest, KeepsResultsHalfAnHourAndThoseOfRunsyncAMinute) {
  const std::string run = taken(), sync = submit(true);
  endpoint_.take("w", 1);
  finish(run);
  finish(sync);
  clock_.advance(1min - 1ms);
  EXPECT_EQ(state(sync), "COMPLETED");
  clock_.advance(1ms);
  EXPECT_EQ(state(sync), "forgotten");
  clock_.advance(29min - 1ms);
  EXPECT_EQ(state(run), "COMPLETED");
  clock_.advance(1ms);
  EXPECT_EQ(state(run), "forgotten");
  EXPECT_FALSE(endpoint_.next_due());
}

TEST_F(EndpointTest, AReaderMaySayHowLongAResultIsKept) {
  const std::string id = taken();
  ASSERT_TRUE(endpoint_.status(id, Millis(10)).ok());
  clock_.advance(10ms);
  EXPECT_EQ(state(id), "IN_PROGRESS") << "of a job that has not ended nothing is taken away";
  finish(id);
  ASSERT_TRUE(endpoint_.status(id, Millis(10)).ok());
  clock_.advance(10ms);
  EXPECT_EQ(state(id), "forgotten");
}

TEST_F(EndpointTest, TheEndIsToldToTheWebhookThreeTimesAtMost) {
  const std::string id = taken(with_webhook());
  EXPECT_TRUE(endpoint_.take_webhooks().empty());
  finish(id);
  for (int attempt = 0; attempt < 3; ++attempt) {
    auto due = endpoint_.take_webhooks();
    ASSERT_EQ(due.size(), 1u);
    EXPECT_EQ(due[0].url, "https://client.example/hook");
    EXPECT_EQ(json::parse(due[0].body), *endpoint_.status(id));
    endpoint_.put_back(std::move(due[0]));
    clock_.advance(9999ms);
    EXPECT_TRUE(endpoint_.take_webhooks().empty());
    clock_.advance(1ms);
  }
  EXPECT_FALSE(endpoint_.next_webhook());
}

TEST_F(EndpointTest, TellsOfWhatChangesAndOfNothingElse) {
  const std::string id = submit();
  EXPECT_EQ(changes_, 1);
  (void)endpoint_.status(id);
  (void)endpoint_.health();
  endpoint_.jobs_to_stop("w");
  EXPECT_EQ(changes_, 1);
  endpoint_.take("w", 1);
  EXPECT_TRUE(endpoint_.take("w", 1).empty());
  EXPECT_EQ(changes_, 2);
  finish(id);
  EXPECT_EQ(changes_, 3);
}

TEST_F(EndpointTest, AJobThatNobodyKnowsIsNotFound) {
  EXPECT_EQ(endpoint_.status("x").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(endpoint_.stream("x").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(endpoint_.cancel("x").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(endpoint_.retry("x").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(endpoint_.ended("x").error().code, ErrorCode::kNotFound);
}

TEST_F(EndpointTest, AWorkersBrokenBodiesAreRefused) {
  const std::string id = taken();
  EXPECT_EQ(endpoint_.done("w", id, 7).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(endpoint_.partial("w", id, json::object()).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(state(id), "IN_PROGRESS");
}

// ---- what clients write

platform::http::NetworkRules rules() {
  platform::http::NetworkRules made;
  made.allow = platform::http::parse_address_ranges("127.0.0.0/8").value_or_throw();
  return made;
}

TEST(RunRequest, IsReadWholly) {
  const auto request = read_run_request(
      {{"input", 7},
       {"webhook", "http://127.0.0.1:9000/hook"},
       {"policy", {{"executionTimeout", 5000}, {"ttl", 604800000}, {"lowPriority", true}}},
       {"s3Config", {{"bucketName", "b"}}}},
      rules());
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->input, 7);
  EXPECT_EQ(request->webhook, "http://127.0.0.1:9000/hook");
  EXPECT_EQ(request->execution_timeout, 5s);
  EXPECT_EQ(request->ttl, 24h * 7);
  EXPECT_EQ(request->s3_config, (json{{"bucketName", "b"}}));
}

TEST(RunRequest, HasThePlatformsLimitsWhenItNamesNone) {
  const auto request = read_run_request({{"input", json::object()}}, rules());
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->execution_timeout, 10min);
  EXPECT_EQ(request->ttl, 24h);
  EXPECT_TRUE(request->s3_config.is_null());
}

TEST(RunRequest, EveryWrongMemberIsNamed) {
  const json body = {{"webhok", "https://a.example"},
                     {"webhook", "http://10.0.0.1/"},
                     {"s3Config", 3},
                     {"policy", {{"executionTimeout", 4999}, {"ttl", "long"}, {"fast", true}}}};
  const auto request = read_run_request(body, rules());
  ASSERT_FALSE(request.ok());
  EXPECT_EQ(request.error().code, ErrorCode::kInvalidArgument);
  for (const char* name : {"input is wanted", "webhok ", "webhook ", "s3Config must be an object",
                           "policy.executionTimeout must be 5000 to 604800000 (ms), got 4999",
                           "policy.ttl ", "policy.fast "}) {
    EXPECT_NE(request.error().message.find(name), std::string::npos)
        << name << " in " << request.error().message;
  }
  EXPECT_FALSE(read_run_request(json::array(), rules()).ok());
}

}  // namespace
}  // namespace limner::runpod
