// Policy: who is next. A state machine without threads, clock or disk: equal calls give equal
// answers.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "contract/job.h"
#include "queue/tier_shares.h"

namespace limner::queue {

using Millis = std::chrono::milliseconds;

// What a policy knows of a waiting job. Accounts and models are numbered by the caller.
struct Waiting {
  std::int64_t sequence = 0;  // unique; the order of acceptance
  std::uint32_t account = 0;
  std::uint32_t model = 0;
  contract::Tier tier = contract::Tier::kRelax;
  std::int32_t priority = 0;  // inside an account; higher first
  double cost = 1.0;          // seconds that a worker is expected to need; > 0
  Millis since{0};            // when it was accepted, by the clock of `now`
};

// A worker that asks for a job.
struct Offer {
  std::span<const std::uint32_t> warm{};  // models it holds; empty: any job is as good as another
  std::size_t workers = 1;                // that share the queue
};

struct Place {
  std::size_t ahead = 0;     // jobs that would start earlier if nothing more arrived
  double seconds_ahead = 0;  // the sum of their costs
};

class Policy {
 public:
  virtual ~Policy() = default;
  virtual void add(const Waiting& job, Millis now) = 0;
  // Takes a job out that will not run. False when it does not wait here.
  virtual bool remove(std::int64_t sequence) = 0;
  // Takes the next job out and charges its tier and account with its cost.
  virtual std::optional<Waiting> next(const Offer& offer, Millis now) = 0;
  // The job ran for `seconds` rather than for its cost: the difference is charged.
  virtual void settle(const Waiting& job, double seconds) = 0;
  virtual std::optional<Place> place(std::int64_t sequence) const = 0;
  virtual std::size_t size() const = 0;
  virtual std::size_t size(contract::Tier tier) const = 0;
};

// "fair" (the default) and "random" (the tier drawn by weight). An unknown name is an error that
// lists them.
std::vector<std::string> policy_names();
Result<std::unique_ptr<Policy>> make_policy(std::string_view name, std::uint64_t random_seed,
                                            const TierRules& rules = {});

}  // namespace limner::queue
