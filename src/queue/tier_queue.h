// TierQueue: the order inside one tier. Accounts share it by start-time fair queueing (Goyal, Vin
// and Cheng 1996), and inside an account the higher priority goes first.
#pragma once

#include <compare>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>

#include "queue/ordered_set.h"
#include "queue/policy.h"

namespace limner::queue {

// An account's k-th slot holds the virtual time, in seconds of work, at which its k-th job may
// start; slots are cut when jobs arrive, and which job takes which slot follows from the account's
// own order. All operations are O(log n). Used by one thread.
class TierQueue {
 public:
  void add(const Waiting& job);
  bool remove(std::int64_t sequence);
  bool contains(std::int64_t sequence) const { return jobs_.contains(sequence); }
  std::size_t size() const { return jobs_.size(); }
  double waiting_seconds() const { return slots_.total(); }

  // The head, or, among the first few, a job whose model is warm. A head is passed over for
  // kLongestPass at most.
  std::int64_t first(std::span<const std::uint32_t> warm, Millis now);
  // The job of the first slot. Not to be called when empty.
  const Waiting& head() const;
  // Takes out a job that will run, with its account's first slot.
  Waiting start(std::int64_t sequence);
  // A job that has run cost its account `seconds` more than was charged.
  void charge(std::uint32_t account, double seconds);

  // Jobs and seconds of this tier before the job.
  std::optional<Place> place(std::int64_t sequence) const;
  // Jobs and seconds that start before `limit` seconds of this tier's work are handed out.
  Place started_before(double limit) const;

 private:
  static constexpr std::size_t kLookAhead = 32;
  static constexpr Millis kLongestPass{15'000};

  struct SlotKey {
    double start = 0.0;        // virtual time
    std::uint64_t number = 0;  // order of making, where starts are equal
    auto operator<=>(const SlotKey&) const = default;
  };
  struct JobKey {
    std::int32_t rank = 0;  // minus the priority
    std::int64_t sequence = 0;
    auto operator<=>(const JobKey&) const = default;
  };
  struct Nothing {};
  struct Account {
    std::deque<SlotKey> slots;
    OrderedSet<JobKey, Nothing> jobs;
    double finish = 0.0;  // virtual time at which everything it asked for is done
  };

  static JobKey key(const Waiting& job) { return {-job.priority, job.sequence}; }
  const Waiting& job_of(std::uint32_t account, std::size_t rank) const;
  void forget_idle_accounts();

  std::unordered_map<std::int64_t, Waiting> jobs_;
  std::unordered_map<std::uint32_t, Account> accounts_;
  OrderedSet<SlotKey, std::uint32_t> slots_;  // payload: the account
  double virtual_time_ = 0.0;                 // start of the slot handed out last
  std::uint64_t next_slot_ = 0;
  std::int64_t passed_job_ = -1;  // the head that was passed over last, and since when
  Millis passed_since_{0};
  std::size_t forget_at_ = 1024;
};

}  // namespace limner::queue
