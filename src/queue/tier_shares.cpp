#include "queue/tier_shares.h"

#include <algorithm>

namespace limner::queue {
namespace {

constexpr std::size_t kRelax = static_cast<std::size_t>(contract::Tier::kRelax);

bool all_saturated(const PerTier<double>& waiting, std::size_t workers, const TierRules& rules) {
  for (const contract::Tier tier : contract::kTiers) {
    if (waiting[static_cast<std::size_t>(tier)] <= reserve_seconds(tier, workers, rules)) {
      return false;
    }
  }
  return true;
}

void scale_to_one(PerTier<double>& shares) {
  double sum = 0.0;
  for (const double share : shares) sum += share;
  if (sum <= 0.0) return;
  for (double& share : shares) share /= sum;
}

// Lifts what lies below `floor` and takes it from the rest in proportion; a share pressed below the
// floor by that is lifted in the next round.
void lift_to(PerTier<double>& shares, double floor) {
  PerTier<bool> lifted{};
  for (std::size_t round = 0; round < shares.size(); ++round) {
    double fixed = 0.0, open = 0.0;
    for (std::size_t tier = 0; tier < shares.size(); ++tier) {
      if (shares[tier] > 0.0 && shares[tier] < floor) lifted[tier] = true;
      (lifted[tier] ? fixed : open) += lifted[tier] ? floor : shares[tier];
    }
    for (std::size_t tier = 0; tier < shares.size(); ++tier) {
      if (lifted[tier]) {
        shares[tier] = floor;
      } else if (open > 0.0) {
        shares[tier] *= (1.0 - fixed) / open;
      }
    }
  }
}

}  // namespace

double reserve_seconds(contract::Tier tier, std::size_t workers, const TierRules& rules) {
  const auto wait = rules.longest_wait[static_cast<std::size_t>(tier)];
  return rules.reserved * static_cast<double>(workers) * static_cast<double>(wait.count());
}

double borrowing_limit(std::size_t workers, const TierRules& rules) {
  return rules.borrowed_seconds * static_cast<double>(workers);
}

PerTier<double> tier_shares(const PerTier<double>& waiting, std::size_t workers,
                            const TierRules& rules) {
  PerTier<double> weights = rules.weights;
  double others = 0.0;
  for (std::size_t tier = 0; tier < kRelax; ++tier) others += waiting[tier];
  const double load = std::min(1.0, others / (rules.busy_seconds * static_cast<double>(workers)));
  weights[kRelax] += (1.0 - load) * std::max(0.0, rules.relax_weight_when_quiet - weights[kRelax]);

  PerTier<double> shares{};
  for (std::size_t tier = 0; tier < shares.size(); ++tier) {
    if (waiting[tier] > 0.0) shares[tier] = weights[tier];
  }
  scale_to_one(shares);
  if (!all_saturated(waiting, workers, rules)) lift_to(shares, rules.reserved);
  scale_to_one(shares);
  return shares;
}

}  // namespace limner::queue
