#include "platform/accounts/quotas.h"

#include <fmt/format.h>

#include <algorithm>

namespace limner::platform {
namespace {

constexpr std::int64_t kDay = 86'400'000;  // milliseconds

}  // namespace

ConcurrentRequests::Place::Place(Place&& other) noexcept
    : counts_(std::exchange(other.counts_, nullptr)), account_(std::move(other.account_)) {}

ConcurrentRequests::Place::~Place() {
  if (counts_) counts_->leave(account_);
}

std::optional<ConcurrentRequests::Place> ConcurrentRequests::enter(const std::string& account,
                                                                   std::int64_t most) {
  const std::lock_guard lock(mutex_);
  const auto there = counts_.find(account);
  if (most > 0 && there != counts_.end() && there->second >= most) return std::nullopt;
  ++counts_[account];
  return Place(*this, account);
}

std::int64_t ConcurrentRequests::inside(const std::string& account) const {
  const std::lock_guard lock(mutex_);
  const auto there = counts_.find(account);
  return there == counts_.end() ? 0 : there->second;
}

void ConcurrentRequests::leave(const std::string& account) {
  const std::lock_guard lock(mutex_);
  const auto there = counts_.find(account);
  if (--there->second == 0) counts_.erase(there);
}

Result<void> DailyImages::accept(const std::string& account, std::int64_t images,
                                 std::int64_t most) {
  if (most <= 0) return {};
  const std::int64_t day = clock_.wall().count() / kDay;
  const std::lock_guard lock(mutex_);
  if (day != day_) {
    day_ = day;
    counts_.clear();
  }
  auto there = counts_.find(account);
  if (there == counts_.end()) {
    const auto drawn = drawn_(account, day * kDay);
    if (!drawn.ok()) return drawn.error();
    there = counts_.emplace(account, *drawn).first;
  }
  if (there->second + images > most) {
    return Error{
        ErrorCode::kUnavailable,
        fmt::format("account {} may ask for {} images a day (UTC), and {} of today's are "
                    "left; got a request for {}",
                    account, most, std::max<std::int64_t>(0, most - there->second), images),
        true};
  }
  there->second += images;
  return {};
}

void DailyImages::give_back(const std::string& account, std::int64_t images,
                            std::int64_t accepted_at) {
  const std::lock_guard lock(mutex_);
  if (accepted_at / kDay != day_) return;
  const auto there = counts_.find(account);
  if (there != counts_.end()) there->second = std::max<std::int64_t>(0, there->second - images);
}

std::int64_t DailyImages::seconds_left() const {
  return (kDay - clock_.wall().count() % kDay + 999) / 1000;
}

}  // namespace limner::platform
