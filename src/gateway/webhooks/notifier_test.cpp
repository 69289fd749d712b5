#include "gateway/webhooks/notifier.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <set>

#include "contract/job_request.h"
#include "gateway/webhooks/messages.h"
#include "queue/queue.h"
#include "queue/sql_store.h"

namespace limner::gateway::webhooks {
namespace {

using namespace std::chrono_literals;
using contract::JobEvent;
using delivery::DeliveryState;
using nlohmann::json;
using platform::http::Reply;
using platform::http::Request;

// Answers 204 and keeps what came; "https://dead.example" never answers.
class Receivers final : public platform::http::Exchange {
 public:
  Result<Reply> send(const Request& request) override {
    if (request.url.host == "dead.example") {
      ++hanging;
      while (!request.stop.stop_requested()) std::this_thread::sleep_for(1ms);
      return Error{ErrorCode::kCancelled, "stopped"};
    }
    const std::scoped_lock lock(mutex_);
    bodies_.push_back(json::parse(request.body.begin(), request.body.end()));
    headers_ = request.headers;
    return Reply{.status = 204};
  }
  std::vector<json> bodies() {
    const std::scoped_lock lock(mutex_);
    return bodies_;
  }
  // Of the last one.
  std::vector<std::string> headers() {
    const std::scoped_lock lock(mutex_);
    return headers_;
  }
  std::atomic<int> hanging = 0;

 private:
  std::mutex mutex_;
  std::vector<json> bodies_;          // by mutex_
  std::vector<std::string> headers_;  // by mutex_
};

class KeptLog final : public Log {
 public:
  void write(LogLevel, std::string_view message, std::span<const LogField> fields) override {
    const std::scoped_lock lock(mutex_);
    text_ += std::string(message) + "\n";
    for (const LogField& field : fields) {
      if (const auto* value = std::get_if<std::string_view>(&field.value)) {
        text_ += std::string(*value) + "\n";
      }
    }
  }
  std::string text() {
    const std::scoped_lock lock(mutex_);
    return text_;
  }

 private:
  std::mutex mutex_;
  std::string text_;  // by mutex_
};

class NotifierTest : public testing::Test {
 protected:
  NotifierTest()
      : folder_(std::filesystem::temp_directory_path() /
                ("limner notifier " + std::to_string(getpid()))) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    jobs_ = queue::open_sqlite_store(folder_ / "limner.db").value_or_throw();
    messages_ = delivery::WebhookStore::open(folder_ / "limner.db", clock_).value_or_throw();
    queue_ = queue::Queue::open(*jobs_, queue::make_policy("fair", 1).value_or_throw(), clock_, {})
                 .value_or_throw();
    restart();
  }
  ~NotifierTest() override {
    notifier_.reset();
    std::filesystem::remove_all(folder_);
  }

  // As after a crash: nothing but the database is left.
  void restart(NotifierOptions options = {}) {
    notifier_ = std::make_unique<Notifier>(
        NotifierServices{*jobs_, *messages_, receivers_, clock_, metrics_, log_},
        [this](const contract::Job& job, const std::optional<JobEvent>& progress) {
          if (show_fails_) throw Failure(*show_fails_);
          json object = {{"request_id", job.id}, {"status", contract::name(job.status)}};
          object["made"] = ++shown_;
          if (progress) object["progress"] = json::parse(progress->data);
          if (job.finished_at > 0) object["finished"] = true;
          return object;
        },
        options);
    queue_->on_event([this](const JobEvent& event) { notifier_->on_event(event); });
  }

  std::string submit(const contract::WebhookChoice& webhook, const std::string& account = "ann",
                     const std::string& traceparent = "") {
    contract::JobRequest request;
    request.traceparent = traceparent;
    request.picture.prompt = "a red circle";
    request.webhook = webhook;
    contract::Job job;
    job.account = account;
    job.model = job.job_class = "miniature";
    job.request = contract::to_text(request);
    return queue_->submit(job).value_or_throw().id;
  }
  void finish(const queue::Lease& lease, contract::JobStatus status) {
    queue::Completion completion;
    completion.status = status;
    completion.usage.seconds = 1.0;
    queue_->finish(lease, completion).value_or_throw();
  }
  void draw_next(contract::JobStatus status = contract::JobStatus::kCompleted) {
    finish(*queue_->lease("worker").value_or_throw(), status);
  }
  // The messages' bodies in order of making.
  std::vector<json> sent() {
    notifier_->tell_outbox().value_or_throw();
    while (notifier_->send_one().value_or_throw() > 0) {
    }
    return receivers_.bodies();
  }
  std::vector<std::string> sent_types() {
    std::vector<std::string> types;
    for (const json& body : sent()) types.push_back(body["type"]);
    return types;
  }
  template <typename Condition>
  bool becomes(Condition condition) {
    for (int i = 0; i < 5000 && !condition(); ++i) std::this_thread::sleep_for(1ms);
    return condition();
  }

  static constexpr const char* kUrl = "https://hooks.example/limner?token=hush";
  using Types = std::vector<std::string>;

  platform::ManualClock clock_;
  Receivers receivers_;
  platform::Metrics metrics_;
  KeptLog log_;
  std::filesystem::path folder_;
  std::unique_ptr<queue::Store> jobs_;
  std::unique_ptr<delivery::WebhookStore> messages_;
  std::unique_ptr<queue::Queue> queue_;
  std::unique_ptr<Notifier> notifier_;
  std::optional<Error> show_fails_;
  int shown_ = 0;
};

TEST_F(NotifierTest, WithoutAWishEveryEndIsToldAndNothingElse) {
  const std::string id = submit({.url = kUrl});
  draw_next();
  submit({.url = kUrl});
  draw_next(contract::JobStatus::kBlocked);
  queue_->cancel(submit({.url = kUrl})).value_or_throw();
  submit({});
  draw_next();
  const auto bodies = sent();
  ASSERT_EQ(bodies.size(), 3u);
  EXPECT_EQ(sent_types(),
            (Types{"generation.completed", "generation.blocked", "generation.canceled"}));
  EXPECT_EQ(bodies[0]["data"]["request_id"], id);
  EXPECT_EQ(bodies[0]["data"]["status"], "completed");
  EXPECT_EQ(bodies[0]["timestamp"], "2023-11-14T22:13:20.000Z");
  EXPECT_NE(metrics_.text().find("limner_webhook_attempts_total{outcome=\"delivered\"} 3"),
            std::string::npos);
}

TEST_F(NotifierTest, EachEventIsToldToWhoeverAsksForItAsItWasThen) {
  submit({.url = kUrl, .events = {"queued", "started", "failed"}});
  draw_next(contract::JobStatus::kFailed);
  const auto bodies = sent();
  ASSERT_EQ(sent_types(), (Types{"generation.queued", "generation.started", "generation.failed"}));
  EXPECT_EQ(bodies[0]["data"]["status"], "queued");
  EXPECT_EQ(bodies[1]["data"]["status"], "running");
  EXPECT_FALSE(bodies[1]["data"].contains("finished"));
  EXPECT_EQ(bodies[2]["data"]["status"], "failed");
  EXPECT_TRUE(bodies[2]["data"].contains("finished"));
}

TEST_F(NotifierTest, ACrashBeforeTheOutboxIsClearedMakesNoSecondMessage) {
  submit({.url = kUrl});
  draw_next();
  EXPECT_EQ(notifier_->tell_outbox().value_or_throw(), 1u);
  EXPECT_FALSE(jobs_->outbox(0, 10)->empty());
  const auto before = messages_->list({.account = "ann"}).value_or_throw();
  restart();
  EXPECT_EQ(notifier_->tell_outbox().value_or_throw(), 0u);
  const auto after = messages_->list({.account = "ann"}).value_or_throw();
  ASSERT_EQ(after.size(), 1u);
  EXPECT_EQ(after[0].delivery.id, before[0].delivery.id);
  EXPECT_EQ(sent().at(0)["data"]["made"], 1) << "the first body stays";
  clock_.advance(2s);
  EXPECT_EQ(notifier_->tell_outbox().value_or_throw(), 0u);
  EXPECT_TRUE(jobs_->outbox(0, 10)->empty());
}

TEST_F(NotifierTest, AnAccountsOwnEndpointIsToldOfJobsThatNameNone) {
  messages_->set_endpoint("ann", {.url = "https://own.example/", .events = {"completed"}})
      .value_or_throw();
  submit({});
  submit({.url = kUrl});
  submit({}, "bob");
  for (int i = 0; i < 3; ++i) draw_next();
  sent();
  std::multiset<std::string> urls;
  const auto views = messages_->list({.account = "ann"}).value_or_throw();
  for (const auto& view : views) urls.insert(view.delivery.url);
  EXPECT_EQ(urls, (std::multiset<std::string>{kUrl, "https://own.example/"}));
  EXPECT_TRUE(messages_->list({.account = "bob"})->empty());
}

TEST_F(NotifierTest, ProgressIsToldAtMostEveryTwoSeconds) {
  submit({.url = kUrl, .events = {"progress"}});
  const queue::Lease lease = *queue_->lease("worker").value_or_throw();
  const auto step = [&](int number) {
    queue_->tell(lease, "progress", "{\"step\":" + std::to_string(number) + "}").value_or_throw();
    clock_.advance(500ms);
    return notifier_->tell_progress().value_or_throw();
  };
  std::vector<std::size_t> told;
  for (int number = 1; number <= 9; ++number) told.push_back(step(number));
  EXPECT_EQ(told, (std::vector<std::size_t>{1, 0, 0, 0, 1, 0, 0, 0, 1}));
  finish(lease, contract::JobStatus::kCompleted);
  clock_.advance(1h);
  EXPECT_EQ(notifier_->tell_progress().value_or_throw(), 0u);
  std::vector<int> steps;
  for (const json& body : sent()) steps.push_back(body["data"]["progress"]["step"]);
  EXPECT_EQ(steps, (std::vector<int>{1, 5, 9}));
}

TEST_F(NotifierTest, NoProgressIsToldToWhoDidNotAsk) {
  submit({.url = kUrl});
  const queue::Lease lease = *queue_->lease("worker").value_or_throw();
  for (int number = 0; number < 3; ++number) {
    queue_->tell(lease, "progress", "{}").value_or_throw();
    clock_.advance(5s);
    EXPECT_EQ(notifier_->tell_progress().value_or_throw(), 0u);
  }
  EXPECT_EQ(shown_, 0);
}

TEST_F(NotifierTest, WhatCannotBeShownNowWaitsInTheOutbox) {
  submit({.url = kUrl});
  draw_next();
  show_fails_ = Error{ErrorCode::kUnavailable, "the store does not answer", true};
  EXPECT_EQ(notifier_->tell_outbox().error().message, "the store does not answer");
  EXPECT_TRUE(messages_->list({.account = "ann"})->empty());
  show_fails_.reset();
  EXPECT_EQ(notifier_->tell_outbox().value_or_throw(), 1u);
}

TEST_F(NotifierTest, WhatCannotBeReadAtAllIsLoggedAndStopsNothing) {
  contract::Job broken;
  broken.account = "ann";
  broken.request = "no request";
  queue_->submit(broken).value_or_throw();
  draw_next();
  submit({.url = kUrl});
  draw_next();
  EXPECT_EQ(sent_types(), Types{"generation.completed"});
  EXPECT_NE(log_.text().find("a webhook message could not be made"), std::string::npos);
}

TEST_F(NotifierTest, AJobThatWasErasedIsNotTold) {
  const std::string id = submit({.url = kUrl});
  draw_next();
  queue_->erase(**queue_->find(id)).value_or_throw();
  EXPECT_EQ(notifier_->tell_outbox().value_or_throw(), 0u);
}

TEST_F(NotifierTest, TheTraceOfTheRequestGoesOnToTheReceiver) {
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  submit({.url = kUrl}, "ann", trace);
  draw_next();
  sent();
  const auto headers = receivers_.headers();
  EXPECT_EQ(std::count(headers.begin(), headers.end(), "traceparent: " + trace), 1);
  submit({.url = kUrl}, "ann", "no trace\r\nX-Other: 1");
  draw_next();
  sent();
  for (const std::string& line : receivers_.headers())
    EXPECT_FALSE(line.starts_with("traceparent"));
}

TEST_F(NotifierTest, ADeadReceiverDelaysNobodyElse) {
  NotifierOptions options;
  options.senders = 4;
  options.gather = 1ms;
  restart(options);
  notifier_->start();
  for (int i = 0; i < 10; ++i) submit({.url = "https://dead.example/", .events = {"queued"}});
  ASSERT_TRUE(becomes([&] { return receivers_.hanging == 2; }));
  for (int i = 0; i < 20; ++i) submit({.url = kUrl, .events = {"queued"}});
  EXPECT_TRUE(becomes([&] { return receivers_.bodies().size() == 20; }));
  EXPECT_EQ(receivers_.hanging, 2);
  notifier_->stop();
  EXPECT_TRUE(jobs_->outbox(0, 100)->empty());
  const auto pending =
      messages_->list({.account = "ann", .state = DeliveryState::kPending}).value_or_throw();
  ASSERT_EQ(pending.size(), 10u) << "broken off, not counted";
  EXPECT_EQ(pending.front().delivery.attempts, 0);
  EXPECT_EQ(log_.text().find("hush"), std::string::npos);
}

TEST(WebhookMessages, AnIdBelongsToOneEventOfOneJob) {
  const std::string id = message_id("0192f-1", 3);
  EXPECT_EQ(id, message_id("0192f-1", 3));
  EXPECT_NE(id, message_id("0192f-1", 4));
  EXPECT_NE(message_id("a", 11), message_id("a1", 1));
  EXPECT_EQ(id.size(), 36u);
  EXPECT_EQ(id.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_"), std::string::npos);
}

TEST(WebhookMessages, TypesOfTheQueueAreNamedAsInTheInterface) {
  EXPECT_EQ(event_name("running"), "started");
  EXPECT_EQ(event_name("expired"), "expired");
  EXPECT_EQ(event_name("canceling"), std::nullopt);
  EXPECT_EQ(event_name("preview"), std::nullopt);
  for (const std::string& name : contract::webhook_events()) {
    EXPECT_TRUE(wanted({name}, name));
    EXPECT_EQ(wanted({}, name), name != "queued" && name != "started" && name != "progress");
  }
}

TEST(WebhookMessages, ABodyKeepsWithinTwentyThousandBytes) {
  json data = {{"request_id", "1"}, {"metadata", "m"}, {"urls", {{"self", "/v1/generations/1"}}}};
  data["images"] = json::array({"small"});
  json body = json::parse(message_body("completed", 0, data));
  EXPECT_EQ(body["data"], data);
  EXPECT_EQ(body["timestamp"], "1970-01-01T00:00:00.000Z");
  for (int i = 0; i < 300; ++i) data["images"].push_back(std::string(100, 'u'));
  const std::string text = message_body("completed", 0, data);
  EXPECT_LE(text.size(), 20'000u);
  body = json::parse(text);
  EXPECT_EQ(body["data"]["truncated"], true);
  EXPECT_EQ(body["data"]["urls"]["self"], "/v1/generations/1");
  EXPECT_TRUE(body["data"]["images"].empty());
  EXPECT_NE(message_body("failed", 0, {{"error", "\xff"}}).find("\xef\xbf\xbd"), std::string::npos);
}

}  // namespace
}  // namespace limner::gateway::webhooks
