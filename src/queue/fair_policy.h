// FairPolicy: weighted-fair between tiers, fair between the accounts of a tier.
#pragma once

#include <random>

#include "queue/policy.h"
#include "queue/tier_queue.h"
#include "queue/tier_shares.h"

namespace limner::queue {

// How the next tier is chosen among those with work.
enum class TierChoice {
  kVirtualTime,  // the one that is furthest behind its share: exact, and the same every time
  kRandom,       // drawn with its share as probability: right on average only
};

// Tiers are start-time fair queues over their seconds of work, with the shares of tier_shares() at
// each choice. When the job whose turn it is in its tier has waited longer than the tier's longest
// wait, it goes first, as long as the tier has borrowed less than borrowing_limit() from its own
// future: a tier that is always late keeps its share.
class FairPolicy : public Policy {
 public:
  explicit FairPolicy(TierRules rules = {}, TierChoice choice = TierChoice::kVirtualTime,
                      std::uint64_t random_seed = 0);

  void add(const Waiting& job, Millis now) override;
  bool remove(std::int64_t sequence) override;
  std::optional<Waiting> next(const Offer& offer, Millis now) override;
  void settle(const Waiting& job, double seconds) override;
  std::optional<Place> place(std::int64_t sequence) const override;
  std::size_t size() const override;
  std::size_t size(contract::Tier tier) const override;

 private:
  PerTier<double> waiting_seconds() const;
  PerTier<double> weights() const;
  std::optional<std::size_t> overdue_tier(Millis now) const;
  std::size_t tier_by_choice(const PerTier<double>& weight);

  void charge(std::size_t tier, double seconds, const PerTier<double>& weight);

  TierRules rules_;
  TierChoice choice_;
  std::mt19937_64 random_;
  PerTier<TierQueue> tiers_;
  PerTier<double> served_{};   // virtual time of each tier: seconds handed out over its weight
  PerTier<double> ahead_{};    // seconds beyond its share, since the tier last had nothing
  double virtual_time_ = 0.0;  // of the tier served last, before it was
  std::size_t workers_ = 1;    // of the last offer
};

}  // namespace limner::queue
