#include "queue/tier_queue.h"

#include <algorithm>

#include "base/check.h"

namespace limner::queue {

void TierQueue::add(const Waiting& job) {
  LIMNER_CHECK(jobs_.emplace(job.sequence, job).second, "a job waits once");
  Account& account = accounts_[job.account];
  const SlotKey slot{std::max(virtual_time_, account.finish), next_slot_++};
  account.finish = slot.start + job.cost;
  account.slots.push_back(slot);
  account.jobs.insert({key(job), {}, job.cost});
  slots_.insert({slot, job.account, job.cost});
}

bool TierQueue::remove(std::int64_t sequence) {
  const auto found = jobs_.find(sequence);
  if (found == jobs_.end()) return false;
  const Waiting job = found->second;
  Account& account = accounts_.at(job.account);
  // The last slot goes, so that the account's other jobs move up.
  slots_.erase(account.slots.back());
  account.slots.pop_back();
  account.finish -= job.cost;
  if (!account.slots.empty()) {
    account.finish = std::max(account.finish, account.slots.back().start);
  }
  account.jobs.erase(key(job));
  jobs_.erase(found);
  return true;
}

const Waiting& TierQueue::job_of(std::uint32_t account, std::size_t rank) const {
  return jobs_.at(accounts_.at(account).jobs.at(rank).key.sequence);
}

const Waiting& TierQueue::head() const {
  LIMNER_CHECK(!jobs_.empty(), "head() of an empty tier");
  return job_of(slots_.at(0).payload, 0);
}

std::int64_t TierQueue::first(std::span<const std::uint32_t> warm, Millis now) {
  const std::int64_t first = head().sequence;
  if (warm.empty()) return first;
  if (passed_job_ == first && now - passed_since_ >= kLongestPass) return first;
  // Slots of one account come in its own order: the n-th one met belongs to its n-th job.
  std::unordered_map<std::uint32_t, std::size_t> met;
  const std::size_t most = std::min(kLookAhead, slots_.size());
  for (std::size_t place = 0; place < most; ++place) {
    const std::uint32_t account = slots_.at(place).payload;
    const Waiting& job = job_of(account, met[account]++);
    if (std::find(warm.begin(), warm.end(), job.model) == warm.end()) continue;
    if (job.sequence != first && passed_job_ != first) {
      passed_job_ = first;
      passed_since_ = now;
    }
    return job.sequence;
  }
  return first;
}

Waiting TierQueue::start(std::int64_t sequence) {
  const Waiting job = jobs_.at(sequence);
  Account& account = accounts_.at(job.account);
  const SlotKey slot = account.slots.front();
  virtual_time_ = std::max(virtual_time_, slot.start);
  slots_.erase(slot);
  account.slots.pop_front();
  account.jobs.erase(key(job));
  jobs_.erase(sequence);
  if (accounts_.size() >= forget_at_) forget_idle_accounts();
  return job;
}

void TierQueue::charge(std::uint32_t account, double seconds) {
  const auto found = accounts_.find(account);
  if (found != accounts_.end()) found->second.finish += seconds;
}

// An account with nothing waiting and nothing owed is as a new one.
void TierQueue::forget_idle_accounts() {
  std::erase_if(accounts_, [&](const auto& entry) {
    return entry.second.slots.empty() && entry.second.finish <= virtual_time_;
  });
  forget_at_ = std::max<std::size_t>(1024, 2 * accounts_.size());
}

std::optional<Place> TierQueue::place(std::int64_t sequence) const {
  const auto found = jobs_.find(sequence);
  if (found == jobs_.end()) return std::nullopt;
  const Account& account = accounts_.at(found->second.account);
  const std::size_t rank = account.jobs.before(key(found->second)).first;
  const auto [ahead, seconds] = slots_.before(account.slots[rank]);
  return Place{ahead, seconds};
}

Place TierQueue::started_before(double limit) const {
  const auto [ahead, seconds] = slots_.begun_before(limit);
  return {ahead, seconds};
}

}  // namespace limner::queue
