#include "queue/simulation/peer_policies.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

#include "base/suggest.h"

namespace limner::queue {
namespace {

constexpr int kSteps[] = {2, 1, 0};  // turbo, fast, relax
constexpr int kWarmLookAhead = 32;

int tier_step(contract::Tier tier) {
  return kSteps[static_cast<std::size_t>(tier)];
}

template <typename Jobs>
std::size_t count_tier(const Jobs& jobs, contract::Tier tier) {
  return static_cast<std::size_t>(std::count_if(
      jobs.begin(), jobs.end(), [&](const auto& entry) { return entry.second.tier == tier; }));
}

}  // namespace

void RoundRobinPolicy::add(const Waiting& job, Millis) {
  jobs_.emplace(job.sequence, job);
  Account& account = accounts_[job.account];
  if (account.jobs.empty()) turns_.emplace(account.served, job.account);
  account.jobs.emplace(-(tier_step(job.tier) * 1000 + job.priority), job.sequence);
}

bool RoundRobinPolicy::remove(std::int64_t sequence) {
  const auto found = jobs_.find(sequence);
  if (found == jobs_.end()) return false;
  const Waiting& job = found->second;
  Account& account = accounts_.at(job.account);
  account.jobs.erase({-(tier_step(job.tier) * 1000 + job.priority), sequence});
  if (account.jobs.empty()) turns_.erase({account.served, job.account});
  jobs_.erase(found);
  return true;
}

std::optional<Waiting> RoundRobinPolicy::next(const Offer& offer, Millis) {
  if (jobs_.empty()) return std::nullopt;
  const std::uint32_t name = turns_.begin()->second;
  Account& account = accounts_.at(name);
  std::int64_t chosen = account.jobs.begin()->second;
  int looked = 0;
  for (const auto& [priority, sequence] : account.jobs) {
    if (priority != account.jobs.begin()->first || looked++ == kWarmLookAhead) break;
    const std::uint32_t model = jobs_.at(sequence).model;
    if (std::find(offer.warm.begin(), offer.warm.end(), model) == offer.warm.end()) continue;
    chosen = sequence;
    break;
  }
  const Waiting job = jobs_.at(chosen);
  turns_.erase({account.served, name});
  account.served = ++turn_;
  turns_.emplace(account.served, name);
  remove(chosen);
  return job;
}

std::optional<Place> RoundRobinPolicy::place(std::int64_t sequence) const {
  const auto found = jobs_.find(sequence);
  if (found == jobs_.end()) return std::nullopt;
  Place place;
  for (auto job = jobs_.begin(); job != found; ++job) {
    ++place.ahead;
    place.seconds_ahead += job->second.cost;
  }
  return place;
}

std::size_t RoundRobinPolicy::size(contract::Tier tier) const {
  return count_tier(jobs_, tier);
}

AgeingPolicy::Key AgeingPolicy::key(const Waiting& job) {
  // 1000 points are 200 seconds of waiting.
  return {job.since - tier_step(job.tier) * Millis{200'000}, job.sequence};
}

void AgeingPolicy::add(const Waiting& job, Millis) {
  jobs_.emplace(job.sequence, job);
  order_.insert(key(job));
}

bool AgeingPolicy::remove(std::int64_t sequence) {
  const auto found = jobs_.find(sequence);
  if (found == jobs_.end()) return false;
  order_.erase(key(found->second));
  jobs_.erase(found);
  return true;
}

std::optional<Waiting> AgeingPolicy::next(const Offer&, Millis) {
  if (jobs_.empty()) return std::nullopt;
  const Waiting job = jobs_.at(order_.begin()->second);
  remove(job.sequence);
  return job;
}

std::optional<Place> AgeingPolicy::place(std::int64_t sequence) const {
  const auto found = jobs_.find(sequence);
  if (found == jobs_.end()) return std::nullopt;
  Place place;
  for (const Key& other : order_) {
    if (other.second == sequence) break;
    ++place.ahead;
    place.seconds_ahead += jobs_.at(other.second).cost;
  }
  return place;
}

std::size_t AgeingPolicy::size(contract::Tier tier) const {
  return count_tier(jobs_, tier);
}

std::vector<std::string> simulated_policy_names() {
  return {"fair", "random", "round-robin", "ageing"};
}

Result<std::unique_ptr<Policy>> make_simulated_policy(std::string_view name,
                                                      std::uint64_t random_seed) {
  if (name == "round-robin") {
    return std::unique_ptr<Policy>(std::make_unique<RoundRobinPolicy>());
  }
  if (name == "ageing") return std::unique_ptr<Policy>(std::make_unique<AgeingPolicy>());
  const std::vector<std::string> names = simulated_policy_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[queue.simulation] no policy '{}'{}; there are {}", name,
                             did_you_mean(name, names), fmt::join(names, ", "))};
  }
  return make_policy(name, random_seed);
}

}  // namespace limner::queue
