// tier_shares: how the tiers divide the workers' time, from what waits now.
#pragma once

#include <array>
#include <chrono>

#include "contract/job.h"

namespace limner::queue {

template <typename T>
using PerTier = std::array<T, contract::kTierCount>;

struct TierRules {
  PerTier<double> weights = {10.0, 5.0, 1.0};
  // Of all workers' time, for each tier that has work.
  double reserved = 0.10;
  // A job that waited longer is promoted ahead of every weight, as far as its tier may borrow.
  PerTier<std::chrono::seconds> longest_wait = {std::chrono::seconds{30}, std::chrono::seconds{120},
                                                std::chrono::seconds{300}};
  // With nothing waiting in the other tiers, relax weighs this much; with busy_seconds of their
  // work waiting per worker, its own weight.
  double relax_weight_when_quiet = 5.0;
  double busy_seconds = 60.0;
  // Per worker, that promotions may take from their own tier's future.
  double borrowed_seconds = 4.0;
};

// Shares of the tiers with waiting work; they sum to 1 (all 0 where nothing waits).
//
// By weight, then every share below `reserved` is lifted to it at the others' cost. One exception:
// while every tier is saturated, that is, has more waiting than its reserved share could clear
// within its longest wait, the weights alone decide. A reservation shields a tier from the others'
// floods, not from its own.
PerTier<double> tier_shares(const PerTier<double>& waiting_seconds, std::size_t workers,
                            const TierRules& rules);

// Work, in seconds, that a tier's reserved share clears within its longest wait: saturation begins
// there.
double reserve_seconds(contract::Tier tier, std::size_t workers, const TierRules& rules);

double borrowing_limit(std::size_t workers, const TierRules& rules);

}  // namespace limner::queue
