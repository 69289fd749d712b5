#include "queue/fair_policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/suggest.h"

namespace limner::queue {

namespace {
std::size_t index(contract::Tier tier) {
  return static_cast<std::size_t>(tier);
}
}  // namespace

FairPolicy::FairPolicy(TierRules rules, TierChoice choice, std::uint64_t random_seed)
    : rules_(rules), choice_(choice), random_(random_seed) {}

void FairPolicy::add(const Waiting& job, Millis now) {
  LIMNER_CHECK(job.cost > 0.0, "a job costs something");
  const std::size_t tier = index(job.tier);
  // A tier that had nothing to do saved nothing up.
  if (tiers_[tier].size() == 0) {
    served_[tier] = std::max(served_[tier], virtual_time_);
    ahead_[tier] = 0.0;
  }
  tiers_[tier].add(job);
}

bool FairPolicy::remove(std::int64_t sequence) {
  return std::any_of(tiers_.begin(), tiers_.end(),
                     [&](TierQueue& tier) { return tier.remove(sequence); });
}

PerTier<double> FairPolicy::waiting_seconds() const {
  PerTier<double> waiting{};
  for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
    waiting[tier] = tiers_[tier].waiting_seconds();
  }
  return waiting;
}

// tier_shares() on the scale of the tiers' own weights, which stays the same when a tier runs
// empty.
PerTier<double> FairPolicy::weights() const {
  PerTier<double> weight = tier_shares(waiting_seconds(), workers_, rules_);
  double scale = 0.0;
  for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
    if (tiers_[tier].size() > 0) scale += rules_.weights[tier];
  }
  for (double& value : weight) value *= scale;
  return weight;
}

// The tier whose head is longest past its tier's longest wait, among those that may borrow. The
// first tier has nothing to be promoted to.
std::optional<std::size_t> FairPolicy::overdue_tier(Millis now) const {
  std::optional<std::size_t> worst;
  Millis worst_by{0};
  for (std::size_t tier = 1; tier < tiers_.size(); ++tier) {
    if (tiers_[tier].size() == 0) continue;
    const Millis late = now - tiers_[tier].head().since - rules_.longest_wait[tier];
    if (late <= worst_by || ahead_[tier] >= borrowing_limit(workers_, rules_)) continue;
    worst = tier;
    worst_by = late;
  }
  return worst;
}

std::size_t FairPolicy::tier_by_choice(const PerTier<double>& weight) {
  if (choice_ == TierChoice::kRandom) {
    return std::discrete_distribution<std::size_t>(weight.begin(), weight.end())(random_);
  }
  std::size_t best = tiers_.size();
  for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
    if (tiers_[tier].size() == 0) continue;
    if (best == tiers_.size() || served_[tier] < served_[best]) best = tier;
  }
  return best;
}

std::optional<Waiting> FairPolicy::next(const Offer& offer, Millis now) {
  if (size() == 0) return std::nullopt;
  workers_ = std::max<std::size_t>(1, offer.workers);
  const PerTier<double> weight = weights();
  const std::optional<std::size_t> overdue = overdue_tier(now);
  const std::size_t tier = overdue ? *overdue : tier_by_choice(weight);
  TierQueue& queue = tiers_[tier];
  const std::int64_t sequence = overdue ? queue.head().sequence : queue.first(offer.warm, now);
  // A promoted job is ahead of its time: it moves its tier's time, not everybody's.
  if (!overdue) virtual_time_ = std::max(virtual_time_, served_[tier]);
  const Waiting job = queue.start(sequence);
  charge(tier, job.cost, weight);
  return job;
}

void FairPolicy::charge(std::size_t tier, double seconds, const PerTier<double>& weight) {
  if (weight[tier] > 0.0) served_[tier] += seconds / weight[tier];
  const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
  ahead_[tier] += seconds;
  for (std::size_t other = 0; sum > 0.0 && other < tiers_.size(); ++other) {
    ahead_[other] -= seconds * weight[other] / sum;
  }
}

void FairPolicy::settle(const Waiting& job, double seconds) {
  const std::size_t tier = index(job.tier);
  charge(tier, seconds - job.cost, weights());
  tiers_[tier].charge(job.account, seconds - job.cost);
}

std::optional<Place> FairPolicy::place(std::int64_t sequence) const {
  for (std::size_t own = 0; own < tiers_.size(); ++own) {
    const std::optional<Place> inside = tiers_[own].place(sequence);
    if (!inside) continue;
    const PerTier<double> weight = weights();
    // When its tier comes to this job, every other tier stands at the same virtual time.
    const double then = served_[own] + inside->seconds_ahead / weight[own];
    Place all = *inside;
    for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
      if (tier == own || tiers_[tier].size() == 0) continue;
      // At equal times the earlier tier goes first, by a hair that no cost is smaller than.
      const double hair = tier < own ? 1e-9 : 0.0;
      const Place other = tiers_[tier].started_before((then - served_[tier]) * weight[tier] + hair);
      all.ahead += other.ahead;
      all.seconds_ahead += other.seconds_ahead;
    }
    return all;
  }
  return std::nullopt;
}

std::size_t FairPolicy::size() const {
  std::size_t sum = 0;
  for (const TierQueue& tier : tiers_) sum += tier.size();
  return sum;
}

std::size_t FairPolicy::size(contract::Tier tier) const {
  return tiers_[index(tier)].size();
}

std::vector<std::string> policy_names() {
  return {"fair", "random"};
}

Result<std::unique_ptr<Policy>> make_policy(std::string_view name, std::uint64_t random_seed,
                                            const TierRules& rules) {
  if (name == "fair") return std::unique_ptr<Policy>(std::make_unique<FairPolicy>(rules));
  if (name == "random") {
    return std::unique_ptr<Policy>(
        std::make_unique<FairPolicy>(rules, TierChoice::kRandom, random_seed));
  }
  const std::vector<std::string> names = policy_names();
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("[queue.policy] no policy '{}'{}; there are fair, random", name,
                           did_you_mean(name, names))};
}

}  // namespace limner::queue
