// What every Store must do: one suite, run on each implementation by instantiating it with a maker.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "queue/store.h"

namespace limner::queue {

// Opens the store of the test's own place; called twice, it finds again what it wrote.
struct StoreMaker {
  std::string name;
  std::function<std::unique_ptr<Store>()> open;
};

class StoreConformance : public ::testing::TestWithParam<std::function<StoreMaker()>> {
 protected:
  void SetUp() override {
    maker_ = GetParam()();
    store_ = maker_.open();
  }
  void reopen() {
    store_.reset();
    store_ = maker_.open();
  }
  std::vector<Written> write(const std::vector<Change>& changes) {
    auto written = store_->write(changes);
    EXPECT_TRUE(written.ok()) << written.error().message;
    return *written;
  }
  Written submit(const std::string& id, const std::string& key = "",
                 const std::string& fingerprint = "") {
    Submission submission;
    submission.job.id = id;
    submission.job.account = "ada";
    submission.job.model = "miniature";
    submission.job.job_class = "miniature/256";
    submission.job.work = 2.5;
    submission.job.request = "{\"prompt\":\"a \\u00e9 'quoted' word\"}";
    submission.job.created_at = 1000;
    if (!key.empty()) submission.idempotency = Idempotency{"ada POST", key, fingerprint};
    return write({submission}).front();
  }
  Transition started(const std::string& id, std::int64_t sequence, std::int32_t attempt) {
    Transition to;
    to.sequence = sequence;
    to.from = contract::JobStatus::kQueued;
    to.from_attempt = attempt - 1;
    to.status = contract::JobStatus::kRunning;
    to.attempt = attempt;
    to.worker = "w1";
    to.started_at = 2000;
    to.event = {id, 1 + attempt, "status", "running", 2000};
    to.tell = true;
    return to;
  }
  Transition completed(const std::string& id, std::int64_t sequence, std::int32_t attempt) {
    Transition to = started(id, sequence, attempt);
    to.from = contract::JobStatus::kRunning;
    to.from_attempt = attempt;
    to.status = contract::JobStatus::kCompleted;
    to.finished_at = 3000;
    to.result = "[]";
    to.event = {id, 2 + attempt, "completed", "", 3000};
    to.usage = contract::Usage{1, 20, 65536, 1.5};
    return to;
  }

  StoreMaker maker_;
  std::unique_ptr<Store> store_;
};

TEST_P(StoreConformance, KeepsAJobWholeAcrossOpenings) {
  const Written written = submit("j1");
  reopen();
  const auto job = store_->find("j1");
  ASSERT_TRUE(job.ok() && *job);
  EXPECT_EQ((*job)->sequence, written.sequence);
  EXPECT_EQ((*job)->request, "{\"prompt\":\"a \\u00e9 'quoted' word\"}");
  EXPECT_EQ((*job)->work, 2.5);
  EXPECT_EQ((*job)->created_at, 1000);
  EXPECT_EQ((*job)->queued_at, 1000);
  EXPECT_EQ((*job)->status, contract::JobStatus::kQueued);
  EXPECT_FALSE((*job)->error);
  EXPECT_FALSE(*store_->find("j2"));
}

TEST_P(StoreConformance, AKeyStandsForOneJob) {
  EXPECT_EQ(submit("j1", "k", "body").kind, Written::Kind::kDone);
  const Written again = submit("j2", "k", "body");
  EXPECT_EQ(again.kind, Written::Kind::kReplayed);
  EXPECT_EQ(again.id, "j1");
  EXPECT_EQ(submit("j3", "k", "other").kind, Written::Kind::kConflict);
  EXPECT_FALSE(*store_->find("j2"));
  const auto known = store_->replay({"ada POST", "k", "body"});
  ASSERT_TRUE(known.ok() && *known);
  EXPECT_EQ((*known)->id, "j1");
  EXPECT_FALSE(*store_->replay({"bob POST", "k", "body"}));
}

TEST_P(StoreConformance, AKeyHoldsInsideOneTransactionToo) {
  Submission one, two;
  one.job.id = "j1";
  two.job.id = "j2";
  one.idempotency = two.idempotency = Idempotency{"s", "k", "b"};
  const auto written = write({one, two});
  EXPECT_EQ(written[0].kind, Written::Kind::kDone);
  EXPECT_EQ(written[1].kind, Written::Kind::kReplayed);
  EXPECT_EQ(written[1].id, "j1");
}

TEST_P(StoreConformance, ALateTransitionChangesNothingAndStopsNobody) {
  const std::int64_t first = submit("j1").sequence, second = submit("j2").sequence;
  write({started("j1", first, 1)});
  const auto written = write({started("j1", first, 1), started("j2", second, 1)});
  EXPECT_EQ(written[0].kind, Written::Kind::kLate);
  EXPECT_EQ(written[1].kind, Written::Kind::kDone);
  EXPECT_EQ(write({completed("j1", first, 2)})[0].kind, Written::Kind::kLate);
  EXPECT_EQ(write({completed("j1", first, 1)})[0].kind, Written::Kind::kDone);
  EXPECT_EQ(write({completed("j1", first, 1)})[0].kind, Written::Kind::kLate);
  EXPECT_EQ((*store_->find("j1"))->status, contract::JobStatus::kCompleted);
  EXPECT_EQ(store_->usage(0, 10)->size(), 1u);
  EXPECT_EQ(store_->events("j1", 0)->size(), 3u);
}

TEST_P(StoreConformance, EventsOutboxAndUsageComeWithTheirTransition) {
  const std::int64_t sequence = submit("j1").sequence;
  write({started("j1", sequence, 1), completed("j1", sequence, 1)});
  reopen();
  const auto events = store_->events("j1", 1);
  ASSERT_EQ(events->size(), 2u);
  EXPECT_EQ((*events)[0].data, "running");
  EXPECT_EQ((*events)[1].type, "completed");
  EXPECT_EQ((*events)[1].id, 3);
  const auto outbox = store_->outbox(0, 10);
  ASSERT_EQ(outbox->size(), 3u);
  EXPECT_EQ((*outbox)[0].type, "queued");
  EXPECT_EQ((*outbox)[1].type, "running");
  EXPECT_EQ((*outbox)[2].type, "completed");
  ASSERT_TRUE(store_->outbox_told((*outbox)[1].id).ok());
  EXPECT_EQ(store_->outbox(0, 10)->size(), 1u);
  const auto usage = store_->usage(0, 10);
  ASSERT_EQ(usage->size(), 1u);
  EXPECT_EQ((*usage)[0].account, "ada");
  EXPECT_EQ((*usage)[0].usage.seconds, 1.5);
  EXPECT_EQ((*usage)[0].work, 2.5);
}

TEST_P(StoreConformance, AddsUsageUpByDayAccountKeyModelAndTier) {
  constexpr std::int64_t kDay = 86'400'000;
  const auto draw = [this](const std::string& id, const std::string& account,
                           const std::string& key, const std::string& model, std::int64_t at,
                           contract::Tier tier = contract::Tier::kFast) {
    Submission submission;
    submission.job.tier = tier;
    submission.job.id = id;
    submission.job.account = account;
    submission.job.key_id = key;
    submission.job.model = model;
    const std::int64_t sequence = write({submission}).front().sequence;
    Transition end = completed(id, sequence, 1);
    end.finished_at = at;
    end.usage = contract::Usage{2, 20, 4096, 0.5};
    write({started(id, sequence, 1), end});
  };
  draw("j1", "ada", "key_1", "miniature", 3 * kDay);
  draw("j2", "ada", "key_1", "miniature", 4 * kDay - 1);
  draw("j3", "ada", "key_1", "miniature", 4 * kDay);
  draw("j4", "ada", "key_2", "miniature", 4 * kDay);
  draw("j5", "ada", "key_2", "other", 4 * kDay);
  draw("j6", "bob", "key_3", "miniature", 4 * kDay);
  draw("j7", "ada", "key_2", "other", 4 * kDay, contract::Tier::kTurbo);
  UsageQuery query{.account = "ada"};
  const auto sums = store_->usage_sums(query);
  ASSERT_TRUE(sums.ok()) << sums.error().message;
  ASSERT_EQ(sums->size(), 5u);
  EXPECT_EQ((*sums)[0].day, 4);
  EXPECT_EQ((*sums)[0].key_id, "key_1");
  EXPECT_EQ((*sums)[0].jobs, 1);
  EXPECT_EQ((*sums)[1].key_id, "key_2");
  EXPECT_EQ((*sums)[1].model, "miniature");
  EXPECT_EQ((*sums)[2].model, "other");
  EXPECT_EQ((*sums)[2].tier, contract::Tier::kTurbo);
  EXPECT_EQ((*sums)[3].tier, contract::Tier::kFast);
  EXPECT_EQ((*sums)[4].day, 3);
  EXPECT_EQ((*sums)[4].jobs, 2);
  EXPECT_EQ((*sums)[4].usage.images, 4);
  EXPECT_EQ((*sums)[4].usage.steps, 40);
  EXPECT_EQ((*sums)[4].usage.pixels, 8192);
  EXPECT_EQ((*sums)[4].usage.seconds, 1.0);
  query.before = 4 * kDay;
  EXPECT_EQ(store_->usage_sums(query)->size(), 1u);
  EXPECT_EQ(store_->usage_sums({.since = 4 * kDay})->size(), 5u);
  EXPECT_EQ(store_->usage_sums({.since = 4 * kDay, .limit = 3})->size(), 3u);
  EXPECT_EQ(*store_->images_since("ada", 4 * kDay), 8);
  EXPECT_EQ(*store_->images_since("ada", 3 * kDay), 12);
  EXPECT_EQ(*store_->images_since("eve", 0), 0);
}

TEST_P(StoreConformance, OutboxIdsGrowWhileTheStoreIsOpen) {
  submit("j1");
  const std::int64_t first = store_->outbox(0, 10)->front().id;
  ASSERT_TRUE(store_->outbox_told(first).ok());
  submit("j2");
  EXPECT_GT(store_->outbox(0, 10)->front().id, first);
}

TEST_P(StoreConformance, OpenJobsAreTheQueuedAndRunningOnesInOrder) {
  std::vector<std::int64_t> sequences;
  for (const char* id : {"j1", "j2", "j3"}) sequences.push_back(submit(id).sequence);
  write({started("j2", sequences[1], 1), started("j1", sequences[0], 1),
         completed("j1", sequences[0], 1)});
  std::vector<std::string> open;
  ASSERT_TRUE(store_->each_open([&](const contract::Job& job) { open.push_back(job.id); }).ok());
  EXPECT_EQ(open, (std::vector<std::string>{"j2", "j3"}));
}

TEST_P(StoreConformance, ListsAnAccountsJobsNewestFirstByCursor) {
  for (const char* id : {"j1", "j2", "j3"}) submit(id);
  ListQuery query;
  query.account = "ada";
  query.limit = 2;
  auto page = store_->list(query);
  ASSERT_EQ(page->size(), 2u);
  EXPECT_EQ((*page)[0].id, "j3");
  query.before = (*page)[1].sequence;
  page = store_->list(query);
  ASSERT_EQ(page->size(), 1u);
  EXPECT_EQ((*page)[0].id, "j1");
  query.status = contract::JobStatus::kFailed;
  EXPECT_TRUE(store_->list(query)->empty());
  query.account = "bob";
  EXPECT_TRUE(store_->list(query)->empty());
}

TEST_P(StoreConformance, TellsWhetherAnotherJobShowsAnObjectOrMayComeToShowIt) {
  const std::string object = "hot/ada/ab/abc.png";
  const std::int64_t first = submit("j1").sequence, second = submit("j2").sequence;
  Transition end = completed("j1", first, 1);
  end.result = R"({"key":"hot/ada/ab/abc.png"})";
  write({started("j1", first, 1), end});
  const auto use = [&](const char* account, const std::string& name, std::int64_t stored_at) {
    const ObjectUse found = store_->object_use(account, name, stored_at).value_or_throw();
    return std::pair(found.shown, found.may_come);
  };
  EXPECT_EQ(use("ada", object, 2500), std::pair(true, false));
  EXPECT_EQ(use("ada", "hot/ada/ab/abd.png", 2500), std::pair(false, false));
  EXPECT_EQ(use("bob", object, 2500), std::pair(false, false));
  write({started("j2", second, 1)});  // at 2000
  EXPECT_EQ(use("ada", object, 2000), std::pair(true, true));
  EXPECT_EQ(use("ada", object, 1999), std::pair(true, false));
  write({Erasure{first}});
  EXPECT_EQ(use("ada", object, 2500), std::pair(false, true));
  EXPECT_EQ(use("bob", object, 2500), std::pair(false, false));
  write({completed("j2", second, 1)});
  EXPECT_EQ(use("ada", object, 2500), std::pair(false, false));
}

TEST_P(StoreConformance, AnErasedJobsObjectsAreRememberedUntilTheyAreSeenTo) {
  const std::int64_t first = submit("j1").sequence, second = submit("j2").sequence;
  EXPECT_EQ(write({Erasure{first, {"hot/ada/ab/abc.png"}}})[0].kind, Written::Kind::kLate);
  EXPECT_TRUE(store_->removals("", 10)->empty());
  write({started("j1", first, 1), completed("j1", first, 1), started("j2", second, 1),
         completed("j2", second, 1)});
  write({Erasure{first, {"hot/ada/ab/abc.png", "hot/ada/ab/abd.png"}}, Erasure{second, {"x"}}});
  reopen();
  EXPECT_EQ(store_->removals("", 2)->size(), 2u);
  EXPECT_EQ(store_->removals("", 10)->size(), 3u);
  const auto of_first = store_->removals("j1", 10);
  ASSERT_EQ(of_first->size(), 2u);
  EXPECT_EQ((*of_first)[1].object, "hot/ada/ab/abd.png");
  EXPECT_EQ((*of_first)[1].account, "ada");
  ASSERT_TRUE(store_->removed((*of_first)[0]).ok());
  EXPECT_EQ(store_->removals("j1", 10)->size(), 1u);
  EXPECT_EQ(store_->removals("j2", 10)->size(), 1u);
}

TEST_P(StoreConformance, ErasesAndSweepsOnlyWhatIsOver) {
  const std::int64_t first = submit("j1", "k", "b").sequence, second = submit("j2").sequence;
  write({started("j1", first, 1), completed("j1", first, 1)});
  write({Erasure{second}});
  EXPECT_TRUE(*store_->find("j2"));
  ASSERT_TRUE(store_->sweep(500, 2999).ok());
  EXPECT_TRUE(*store_->find("j1"));
  ASSERT_TRUE(store_->sweep(5000, 3001).ok());
  EXPECT_FALSE(*store_->find("j1"));
  EXPECT_TRUE(*store_->find("j2"));
  EXPECT_FALSE(*store_->replay({"ada POST", "k", "b"}));
  EXPECT_EQ(store_->usage(0, 10)->size(), 1u);
}

TEST_P(StoreConformance, RemembersSettingsAndErrors) {
  const std::int64_t sequence = submit("j1").sequence;
  write({Setting{"paused", "yes"}});
  write({started("j1", sequence, 1)});
  Transition failed = completed("j1", sequence, 1);
  failed.status = contract::JobStatus::kFailed;
  failed.error = Error{ErrorCode::kOutOfMemory, "does not fit", true};
  failed.dead_letter = true;
  write({failed});
  reopen();
  EXPECT_EQ(*store_->setting("paused"), "yes");
  EXPECT_EQ(*store_->setting("never set"), "");
  const auto job = store_->find(sequence);
  ASSERT_TRUE((*job)->error);
  EXPECT_EQ((*job)->error->code, ErrorCode::kOutOfMemory);
  EXPECT_EQ((*job)->error->message, "does not fit");
  EXPECT_TRUE((*job)->error->retryable);
  EXPECT_TRUE((*job)->dead_letter);
}

}  // namespace limner::queue
