// Ledger: what a client of the queue was told, and whether a store still holds it.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "platform/clock.h"
#include "queue/queue.h"
#include "queue/sql_store.h"

namespace limner::queue {

struct Ledger {
  std::map<std::string, std::string> accepted;  // idempotency key -> job
  std::set<std::string> finished;               // jobs whose finish() was answered
  std::set<std::string> canceled;
};

inline Idempotency ledger_key(const std::string& key) {
  return {"ledger", key, "body of " + key};
}

inline contract::Job ledger_job(int number) {
  contract::Job job;
  job.account = fmt::format("account{}", number % 3);
  job.tier = contract::kTiers[static_cast<std::size_t>(number) % 3];
  job.job_class = job.model = "miniature";
  job.request = fmt::format("{{\"number\":{}}}", number);
  return job;
}

// Innocent workers die by the dozen in these tests.
inline QueueOptions ledger_options() {
  QueueOptions options;
  options.most_crashes = 1'000'000;
  options.random = [state = std::uint64_t{1}]() mutable { return state += 0x9e3779b97f4a7c15ULL; };
  return options;
}

inline std::unique_ptr<Queue> open_queue(Store& store, const platform::Clock& clock,
                                         QueueOptions options) {
  auto queue = Queue::open(store, make_policy("fair", 1).value(), clock, std::move(options));
  EXPECT_TRUE(queue.ok()) << queue.error().message;
  return queue.ok() ? std::move(*queue) : nullptr;
}

// Everything that was promised is there; then runs what is left, and every job must have ended
// exactly once.
inline void expect_kept(const std::filesystem::path& file, const Ledger& ledger) {
  auto store = open_sqlite_store(file);
  ASSERT_TRUE(store.ok()) << store.error().message;
  platform::ManualClock clock;
  const auto queue = open_queue(**store, clock, ledger_options());
  ASSERT_TRUE(queue);
  for (const auto& [key, id] : ledger.accepted) {
    const auto job = queue->find(id);
    ASSERT_TRUE(job.ok() && *job) << "lost " << id;
    const auto again = queue->submit(ledger_job(0), ledger_key(key));
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->kind, Submitted::Kind::kReplayed);
    EXPECT_EQ(again->id, id);
  }
  for (const std::string& id : ledger.finished) {
    EXPECT_EQ((**queue->find(id)).status, contract::JobStatus::kCompleted) << id;
  }
  for (const std::string& id : ledger.canceled) {
    EXPECT_EQ((**queue->find(id)).status, contract::JobStatus::kCanceled) << id;
  }
  clock.advance(Millis{120'000});
  for (;;) {
    auto lease = queue->lease("last");
    ASSERT_TRUE(lease.ok()) << lease.error().message;
    if (!*lease) break;
    Completion completion;
    completion.usage.seconds = 1.0;
    ASSERT_TRUE(queue->finish(**lease, completion).ok());
  }
  std::map<std::string, int> used;
  const auto usage = (*store)->usage(0, 100'000);
  ASSERT_TRUE(usage.ok());
  for (const UsageRow& row : *usage) ++used[row.job_id];
  for (const auto& [key, id] : ledger.accepted) {
    const contract::Job job = **queue->find(id);
    EXPECT_TRUE(contract::is_terminal(job.status)) << id;
    EXPECT_EQ(used[id], job.status == contract::JobStatus::kCompleted ? 1 : 0) << id;
    int ends = 0;
    const auto events = queue->events(id, 0);
    ASSERT_TRUE(events.ok());
    for (const contract::JobEvent& event : *events) {
      const auto status = contract::status_named(event.type);
      ends += status && contract::is_terminal(*status) ? 1 : 0;
    }
    EXPECT_EQ(ends, 1) << id;
  }
}

}  // namespace limner::queue
