#include "queue/queue.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "queue/sql_store.h"

namespace limner::queue {
namespace {

using contract::JobStatus;
using contract::Tier;
using std::chrono::hours;

class QueueTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("limner-queue-{}", getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    open();
  }
  void TearDown() override {
    queue_.reset();
    store_.reset();
    std::filesystem::remove_all(folder_);
  }
  // As after a crash: the old queue is simply gone.
  void open() {
    queue_.reset();
    store_.reset();
    store_ = open_sqlite_store(folder_ / "limner.db").value();
    QueueOptions options = options_;
    options.random = [this] { return random_ += 0x9e3779b97f4a7c15ULL; };
    queue_ = Queue::open(*store_, make_policy("fair", 1).value(), clock_, options).value();
    queue_->on_event([this](const contract::JobEvent& event) { heard_.push_back(event); });
  }
  static contract::Job job(const std::string& account = "ada", Tier tier = Tier::kFast) {
    contract::Job made;
    made.account = account;
    made.tier = tier;
    made.model = "miniature";
    made.job_class = "miniature/256";
    made.request = "{}";
    return made;
  }
  std::string submit(const contract::Job& made = job()) {
    auto submitted = queue_->submit(made);
    EXPECT_TRUE(submitted.ok()) << submitted.error().message;
    EXPECT_EQ(submitted->kind, Submitted::Kind::kAccepted);
    return submitted->id;
  }
  Lease lease() {
    auto leased = queue_->lease("w1");
    EXPECT_TRUE(leased.ok() && *leased);
    return std::move(**leased);
  }
  bool nothing_to_lease() { return !*queue_->lease("w1"); }
  static Completion completion(double seconds = 2.0) {
    Completion made;
    made.result = "[\"artifact\"]";
    made.usage = {1, 20, 65536, seconds};
    return made;
  }
  contract::Job found(const std::string& id) { return **queue_->find(id); }

  std::filesystem::path folder_;
  platform::ManualClock clock_;
  QueueOptions options_;
  std::atomic<std::uint64_t> random_ = 7;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Queue> queue_;
  std::vector<contract::JobEvent> heard_;
};

TEST_F(QueueTest, AJobGoesFromQueuedOverRunningToCompleted) {
  const std::string id = submit();
  EXPECT_EQ(found(id).status, JobStatus::kQueued);
  EXPECT_EQ(queue_->place(id)->position, 1u);
  const Lease leased = lease();
  EXPECT_EQ(leased.job.id, id);
  EXPECT_EQ(leased.job.request, "{}");
  EXPECT_EQ(leased.job.attempt, 1);
  EXPECT_FALSE(queue_->place(id));
  ASSERT_TRUE(queue_->finish(leased, completion()).ok());
  EXPECT_EQ(found(id).status, JobStatus::kCompleted);
  EXPECT_EQ(found(id).result, "[\"artifact\"]");
  EXPECT_EQ(store_->usage(0, 10)->size(), 1u);
  std::vector<std::string> types;
  for (const auto& event : heard_) types.push_back(event.type + event.data);
  EXPECT_EQ(types, (std::vector<std::string>{"statusqueued", "statusrunning", "completed"}));
}

TEST_F(QueueTest, FinishingTwiceIsFinishingOnce) {
  submit();
  const Lease leased = lease();
  ASSERT_TRUE(queue_->finish(leased, completion()).ok());
  EXPECT_TRUE(queue_->finish(leased, completion()).ok());
  EXPECT_EQ(store_->usage(0, 10)->size(), 1u);
}

TEST_F(QueueTest, AWorkerWithoutHeartbeatLosesItsLeaseAndItsLateWriteIsRefused) {
  const std::string id = submit();
  const Lease slow = lease();
  clock_.advance(Millis{14'000});
  ASSERT_TRUE(queue_->heartbeat(slow).ok());
  clock_.advance(Millis{14'000});
  EXPECT_TRUE(nothing_to_lease());
  EXPECT_FALSE(slow.stop.stop_requested());
  clock_.advance(Millis{1'000});
  const Lease next = lease();
  EXPECT_TRUE(slow.stop.stop_requested());
  EXPECT_EQ(next.job.id, id);
  EXPECT_EQ(next.job.attempt, 2);
  EXPECT_EQ(queue_->heartbeat(slow).error().code, ErrorCode::kCancelled);
  EXPECT_EQ(queue_->finish(slow, completion()).error().code, ErrorCode::kCancelled);
  EXPECT_EQ(queue_->tell(slow, "progress", "").error().code, ErrorCode::kCancelled);
  ASSERT_TRUE(queue_->finish(next, completion()).ok());
  EXPECT_EQ(queue_->finish(slow, completion()).error().code, ErrorCode::kCancelled);
}

TEST_F(QueueTest, AJobWhoseWorkersVanishThreeTimesIsADeadLetter) {
  const std::string poison = submit(), other = submit(job("bob"));
  for (int crash = 0; crash < 3; ++crash) {
    Lease leased = lease();
    if (leased.job.id == other) {
      ASSERT_TRUE(queue_->finish(leased, completion()).ok());
      leased = lease();
    }
    EXPECT_EQ(leased.job.id, poison);
    clock_.advance(Millis{15'000});
    ASSERT_TRUE(queue_->tick().ok());
  }
  EXPECT_EQ(found(poison).status, JobStatus::kFailed);
  EXPECT_TRUE(found(poison).dead_letter);
  EXPECT_TRUE(nothing_to_lease());
  ASSERT_TRUE(queue_->retry(poison).ok());
  EXPECT_FALSE(queue_->retry(poison).ok());
  EXPECT_EQ(lease().job.attempt, 4);
}

TEST_F(QueueTest, ARestartKeepsEveryJobAndRunsWhatRanAgain) {
  std::vector<std::string> ids;
  for (int count = 0; count < 5; ++count) ids.push_back(submit());
  const Lease before = lease();
  ASSERT_TRUE(queue_->tell(before, "progress", "1").ok());
  const std::int64_t last_seen = queue_->events(before.job.id, 0)->back().id;
  open();
  EXPECT_EQ(queue_->waiting(Tier::kFast), 5u);
  EXPECT_EQ(found(before.job.id).crashes, 1);
  EXPECT_EQ(queue_->heartbeat(before).error().code, ErrorCode::kCancelled);
  // A reader that reconnects is told what is new, under ids it has not seen.
  const auto events = queue_->events(before.job.id, last_seen);
  ASSERT_EQ(events->size(), 1u);
  EXPECT_EQ(events->front().data, "queued");
  for (const std::string& id : ids) {
    const Lease leased = lease();
    EXPECT_EQ(leased.job.id, id);
    ASSERT_TRUE(queue_->finish(leased, completion()).ok());
  }
}

TEST_F(QueueTest, AKeyMakesOneJobHoweverOftenItComes) {
  const Idempotency key{"ada POST /v1/generations", "k1", "body"};
  const std::string id = queue_->submit(job(), key)->id;
  std::vector<std::jthread> threads;
  std::atomic<int> replayed = 0;
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&] {
      for (int time = 0; time < 5; ++time) {
        const auto again = queue_->submit(job(), key);
        if (again.ok() && again->kind == Submitted::Kind::kReplayed && again->id == id) ++replayed;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(replayed, 40);
  EXPECT_EQ(queue_->submit(job(), Idempotency{key.scope, key.key, "other"})->kind,
            Submitted::Kind::kConflict);
  EXPECT_EQ(queue_->waiting(Tier::kFast), 1u);
}

TEST_F(QueueTest, AStormOfOneNewKeyMakesOneJob) {
  std::vector<std::jthread> threads;
  std::atomic<int> accepted = 0;
  for (int thread = 0; thread < 16; ++thread) {
    threads.emplace_back([&] {
      const auto submitted = queue_->submit(job(), Idempotency{"s", "storm", "body"});
      if (submitted.ok() && submitted->kind == Submitted::Kind::kAccepted) ++accepted;
    });
  }
  threads.clear();
  EXPECT_EQ(accepted, 1);
  EXPECT_EQ(queue_->waiting(Tier::kFast), 1u);
}

TEST_F(QueueTest, CancelIsImmediateForAWaitingJobAndAskedOfARunningOne) {
  const std::string first = submit(), second = submit();
  const Lease leased = lease();
  ASSERT_EQ(leased.job.id, first);
  EXPECT_EQ(*queue_->cancel(second), JobStatus::kCanceled);
  EXPECT_EQ(found(second).status, JobStatus::kCanceled);
  EXPECT_EQ(*queue_->cancel(first), JobStatus::kRunning);
  EXPECT_TRUE(leased.stop.stop_requested());
  EXPECT_EQ(found(first).status, JobStatus::kRunning);
  Completion stopped;
  stopped.status = JobStatus::kCanceled;
  ASSERT_TRUE(queue_->finish(leased, stopped).ok());
  EXPECT_EQ(*queue_->cancel(first), JobStatus::kCanceled);
  EXPECT_EQ(queue_->cancel("nobody").error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(nothing_to_lease());
}

TEST_F(QueueTest, AWorkerThatDiesUnderACancelLeavesACanceledJob) {
  const std::string id = submit();
  lease();
  ASSERT_TRUE(queue_->cancel(id).ok());
  open();
  EXPECT_EQ(found(id).status, JobStatus::kCanceled);
}

TEST_F(QueueTest, RetryableFailuresBackOffLongerEachTimeAndEnd) {
  const std::string id = submit();
  Millis longest{1'000};
  for (int failure = 1; failure < 5; ++failure) {
    const Lease leased = lease();
    ASSERT_TRUE(queue_->fail(leased, {ErrorCode::kUnavailable, "later", true}).ok());
    EXPECT_EQ(found(id).status, JobStatus::kQueued);
    clock_.advance(longest / 2 - Millis{1});
    EXPECT_TRUE(nothing_to_lease()) << failure;
    clock_.advance(longest / 2 + Millis{1});
    longest *= 2;
  }
  ASSERT_TRUE(queue_->fail(lease(), {ErrorCode::kUnavailable, "later", true}).ok());
  EXPECT_EQ(found(id).status, JobStatus::kFailed);
  EXPECT_EQ(found(id).error->message, "later");
  const std::string fatal = submit();
  ASSERT_TRUE(queue_->fail(lease(), {ErrorCode::kInvalidModel, "broken", false}).ok());
  EXPECT_EQ(found(fatal).status, JobStatus::kFailed);
}

TEST_F(QueueTest, ABackOffSurvivesARestartAndAClockThatJumps) {
  submit();
  ASSERT_TRUE(queue_->fail(lease(), {ErrorCode::kUnavailable, "later", true}).ok());
  clock_.jump_wall(-hours{1});
  open();
  EXPECT_TRUE(nothing_to_lease());
  clock_.advance(Millis{60'000});
  EXPECT_FALSE(nothing_to_lease());
}

TEST_F(QueueTest, AReleasedJobIsFirstAgainAndUnharmed) {
  const std::string first = submit();
  submit();
  ASSERT_TRUE(queue_->release(lease()).ok());
  const Lease leased = lease();
  EXPECT_EQ(leased.job.id, first);
  EXPECT_EQ(leased.job.crashes, 0);
  EXPECT_EQ(leased.job.attempt, 2);
}

TEST_F(QueueTest, AJobThatWaitsPastItsTimeExpires) {
  contract::Job dated = job();
  dated.expires_at = (clock_.wall() + Millis{10'000}).count();
  const std::string waits = submit(dated);
  clock_.advance(Millis{9'999});
  ASSERT_TRUE(queue_->tick().ok());
  EXPECT_EQ(found(waits).status, JobStatus::kQueued);
  clock_.advance(Millis{1});
  ASSERT_TRUE(queue_->tick().ok());
  EXPECT_EQ(found(waits).status, JobStatus::kExpired);
  ASSERT_TRUE(queue_->retry(waits).ok());
  open();
  EXPECT_EQ(lease().job.id, waits);
}

TEST_F(QueueTest, APausedQueueGivesNothingOutAlsoAfterARestart) {
  submit();
  ASSERT_TRUE(queue_->pause().ok());
  EXPECT_TRUE(nothing_to_lease());
  open();
  EXPECT_TRUE(queue_->paused());
  EXPECT_TRUE(nothing_to_lease());
  ASSERT_TRUE(queue_->resume().ok());
  EXPECT_FALSE(nothing_to_lease());
}

TEST_F(QueueTest, ReadersMissNothingAndSeeNothingTwice) {
  const std::string id = submit();
  const Lease leased = lease();
  ASSERT_TRUE(queue_->tell(leased, "progress", "1/4").ok());
  ASSERT_TRUE(queue_->tell(leased, "preview", "a").ok());
  ASSERT_TRUE(queue_->tell(leased, "preview", "b").ok());
  const auto first = queue_->events(id, 0);
  std::vector<std::string> data;
  for (const auto& event : *first) data.push_back(event.data);
  EXPECT_EQ(data, (std::vector<std::string>{"queued", "running", "1/4", "b"}));
  ASSERT_TRUE(queue_->finish(leased, completion()).ok());
  const auto rest = queue_->events(id, first->back().id);
  ASSERT_EQ(rest->size(), 1u);
  EXPECT_EQ(rest->front().type, "completed");
  for (std::size_t next = 1; next < heard_.size(); ++next) {
    EXPECT_GT(heard_[next].id, heard_[next - 1].id);
  }
}

TEST_F(QueueTest, AFullTierRefusesWithATimeToComeBack) {
  options_.limits.most_waiting = {1, 2, 3};
  open();
  submit();
  submit();
  const auto refused = queue_->submit(job());
  ASSERT_EQ(refused->kind, Submitted::Kind::kRefused);
  EXPECT_FALSE(refused->refusal->account_limit);
  EXPECT_GE(refused->refusal->retry_after.count(), 1);
  EXPECT_LE(refused->refusal->retry_after.count(), 120);
  submit(job("ada", Tier::kTurbo));  // another tier is not full
}

TEST_F(QueueTest, AnAccountMayNotFillTheQueueAlone) {
  options_.limits.most_per_account = 2;
  open();
  submit();
  submit();
  EXPECT_TRUE(queue_->submit(job())->refusal->account_limit);
  submit(job("bob"));
  ASSERT_TRUE(queue_->finish(lease(), completion()).ok());
  submit();
}

TEST_F(QueueTest, EstimatesComeFromMeasuredJobsAndSurviveARestart) {
  const std::string unknown = submit();
  EXPECT_FALSE(queue_->place(unknown)->eta_seconds);
  ASSERT_TRUE(queue_->finish(lease(), completion(4.0)).ok());
  open();
  for (int count = 0; count < 5; ++count) submit();
  contract::Job big = job();
  big.work = 3.0;
  submit(big);
  const std::string last = submit();
  const auto place = queue_->place(last);
  EXPECT_EQ(place->position, 7u);
  EXPECT_NEAR(*place->eta_seconds, 5 * 4.0 + 12.0, 1e-9);
  EXPECT_GE(*place->eta_high_seconds, *place->eta_seconds);
  queue_->set_workers(2);
  EXPECT_NEAR(*queue_->place(last)->eta_seconds, 16.0, 1e-9);
}

TEST_F(QueueTest, EraseTakesOnlyWhatIsOver) {
  const std::string id = submit();
  const contract::Job first = **queue_->find(id);
  EXPECT_EQ(queue_->erase(first).error().code, ErrorCode::kInvalidArgument);
  ASSERT_TRUE(queue_->cancel(id).ok());
  ASSERT_TRUE(queue_->erase(first).ok());
  EXPECT_FALSE(*queue_->find(id));
  EXPECT_EQ(queue_->erase(first).error().code, ErrorCode::kNotFound);
}

TEST_F(QueueTest, EraseLeavesAJobThatHasRunAgainSinceItWasRead) {
  const std::string id = submit();
  lease();
  ASSERT_TRUE(queue_->cancel(id).ok());
  clock_.advance(Millis{60'000});
  ASSERT_TRUE(queue_->tick().ok());
  const contract::Job read = **queue_->find(id);
  ASSERT_EQ(read.status, JobStatus::kCanceled);
  ASSERT_TRUE(queue_->retry(id).ok());
  const Lease again = lease();
  ASSERT_TRUE(queue_->finish(again, completion()).ok());
  EXPECT_EQ(queue_->erase(read).error().code, ErrorCode::kUnavailable);
  EXPECT_TRUE(queue_->erase(**queue_->find(id)).ok());
}

TEST_F(QueueTest, AJobThatWaitsAgainTellsSinceWhen) {
  const std::string id = submit();
  const std::int64_t accepted = (*queue_->find(id))->created_at;
  EXPECT_EQ((*queue_->find(id))->queued_at, accepted);
  clock_.advance(Millis{10'000});
  const Lease first = lease();
  EXPECT_EQ(first.job.queued_at, accepted);
  clock_.advance(Millis{5'000});
  ASSERT_TRUE(queue_->release(first).ok());
  clock_.advance(Millis{1'000});
  const Lease second = lease();
  EXPECT_EQ(second.job.created_at, accepted);
  EXPECT_EQ(second.job.queued_at, accepted + 15'000);
  EXPECT_EQ(second.job.started_at, accepted + 16'000);
}

TEST_F(QueueTest, ActsAreWrittenWithTheChangeThatTheyAre) {
  const auto act = [](const char* action) { return platform::AuditAct{"key_1", action, "j", ""}; };
  const std::string id = submit(), other = submit();
  ASSERT_TRUE(queue_->cancel(id, act("cancel")).ok());
  ASSERT_TRUE(queue_->cancel(id, act("again")).ok());  // it is canceled already: no act
  ASSERT_TRUE(queue_->retry(id, act("retry")).ok());
  EXPECT_FALSE(queue_->retry(id, act("again")).ok());
  ASSERT_TRUE(queue_->pause(act("pause")).ok());
  ASSERT_TRUE(queue_->resume(act("resume")).ok());
  ASSERT_TRUE(queue_->cancel(other).ok());
  ASSERT_TRUE(queue_->erase(**queue_->find(other), {}, act("erase")).ok());
  EXPECT_FALSE(queue_->erase(**queue_->find(id), {}, act("again")).ok());
  std::vector<std::string> actions;
  const auto entries = platform::list_audit(folder_ / "limner.db", INT64_MAX, 100);
  ASSERT_TRUE(entries.ok()) << entries.error().message;
  for (const auto& entry : *entries) actions.insert(actions.begin(), entry.act.action);
  EXPECT_EQ(actions, (std::vector<std::string>{"cancel", "retry", "pause", "resume", "erase"}));
  EXPECT_EQ(platform::verify_audit(folder_ / "limner.db", std::nullopt)->problem, "");
}

TEST_F(QueueTest, WaitForWorkWakesForAJobAndForAStop) {
  std::stop_source stop;
  std::jthread waiter([&] { queue_->wait_for_work(Millis{60'000}, stop.get_token()); });
  submit();
  waiter.join();
  lease();
  std::jthread second([&] { queue_->wait_for_work(Millis{60'000}, stop.get_token()); });
  stop.request_stop();
  second.join();
}

TEST_F(QueueTest, ManyThreadsSubmitLeaseAndFinishEveryJobOnce) {
  std::atomic<int> finished = 0;
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] {
        for (int count = 0; count < 25; ++count) submit(job(fmt::format("account{}", thread)));
      });
      threads.emplace_back([&, thread] {
        while (finished < 100) {
          auto leased = queue_->lease(fmt::format("w{}", thread));
          ASSERT_TRUE(leased.ok()) << leased.error().message;
          if (!*leased) {
            queue_->wait_for_work(Millis{5}, {});
            continue;
          }
          ASSERT_TRUE(queue_->heartbeat(**leased).ok());
          ASSERT_TRUE(queue_->finish(**leased, completion()).ok());
          ++finished;
        }
      });
    }
  }
  EXPECT_EQ(finished, 100);
  EXPECT_EQ(store_->usage(0, 1000)->size(), 100u);
}

}  // namespace
}  // namespace limner::queue
