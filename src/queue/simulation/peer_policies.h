// Rules of two other image services, written from their description, to be held beside ours on the
// same traces. They know no tiers: a tier becomes a starting priority.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <unordered_map>

#include "queue/policy.h"

namespace limner::queue {

// InvokeAI: the account that was served longest ago gives its best job (highest priority, oldest),
// or one for a warm model among its next 32 of the same priority. Place and settle as it has them:
// the place counts jobs accepted before, and costs are not looked at.
class RoundRobinPolicy : public Policy {
 public:
  void add(const Waiting& job, Millis now) override;
  bool remove(std::int64_t sequence) override;
  std::optional<Waiting> next(const Offer& offer, Millis now) override;
  void settle(const Waiting&, double) override {}
  std::optional<Place> place(std::int64_t sequence) const override;
  std::size_t size() const override { return jobs_.size(); }
  std::size_t size(contract::Tier tier) const override;

 private:
  using Key = std::pair<std::int32_t, std::int64_t>;  // minus priority, sequence
  struct Account {
    std::set<Key> jobs;
    std::int64_t served = 0;  // turn at which it was served last
  };

  std::map<std::int64_t, Waiting> jobs_;
  std::unordered_map<std::uint32_t, Account> accounts_;
  std::set<std::pair<std::int64_t, std::uint32_t>> turns_;  // accounts with work by last turn
  std::int64_t turn_ = 0;
};

// AI Horde: highest priority first, where a job gains 50 every 10 s. The tiers start 1000 apart.
class AgeingPolicy : public Policy {
 public:
  void add(const Waiting& job, Millis now) override;
  bool remove(std::int64_t sequence) override;
  std::optional<Waiting> next(const Offer& offer, Millis now) override;
  void settle(const Waiting&, double) override {}
  std::optional<Place> place(std::int64_t sequence) const override;
  std::size_t size() const override { return jobs_.size(); }
  std::size_t size(contract::Tier tier) const override;

 private:
  // All jobs age alike, so their order never changes: it is that of the moment at which each would
  // have had priority 0.
  using Key = std::pair<Millis, std::int64_t>;
  static Key key(const Waiting& job);

  std::set<Key> order_;
  std::unordered_map<std::int64_t, Waiting> jobs_;
};

// "fair", "random", "round-robin", "ageing".
std::vector<std::string> simulated_policy_names();
Result<std::unique_ptr<Policy>> make_simulated_policy(std::string_view name,
                                                      std::uint64_t random_seed);

}  // namespace limner::queue
