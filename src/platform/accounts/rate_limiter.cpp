#include "platform/accounts/rate_limiter.h"

#include <algorithm>
#include <vector>

#include "platform/accounts/gcra.h"
#include "platform/http/address.h"

namespace limner::platform {
namespace {

constexpr std::int64_t kMinute = 60'000'000'000;  // nanoseconds

std::chrono::seconds rounded_up(std::int64_t nanoseconds) {
  return std::chrono::ceil<std::chrono::seconds>(std::chrono::nanoseconds(nanoseconds));
}

}  // namespace

RateAnswer RateLimiter::take(std::string_view name, const Rate& rate) {
  if (rate.per_minute <= 0) return {};
  const GcraRate gcra_rate{std::max<std::int64_t>(kMinute / rate.per_minute, 1),
                           std::max<std::int64_t>(rate.burst, 1)};
  const std::lock_guard lock(mutex_);
  const std::int64_t now = std::chrono::nanoseconds(clock_.now()).count();
  if (arrivals_.size() >= most_) forget();
  std::int64_t& arrival = arrivals_[std::string(name)];
  const GcraAnswer answer = gcra(arrival, now, gcra_rate);
  arrival = answer.arrival;
  return {
      answer.allowed,   gcra_rate.burst,          rounded_up(gcra_rate.burst * gcra_rate.interval),
      answer.remaining, rounded_up(answer.reset), rounded_up(answer.retry)};
}

std::size_t RateLimiter::remembered() const {
  const std::lock_guard lock(mutex_);
  return arrivals_.size();
}

void RateLimiter::forget() {
  const std::int64_t now = std::chrono::nanoseconds(clock_.now()).count();
  std::erase_if(arrivals_, [&](const auto& one) { return one.second <= now; });
  // A quarter at once, so that the cost of finding them is spread over many requests.
  const std::size_t keep = most_ - most_ / 4;
  if (arrivals_.size() <= keep) return;
  std::vector<std::int64_t> times;
  times.reserve(arrivals_.size());
  for (const auto& one : arrivals_) times.push_back(one.second);
  const auto last = times.begin() + static_cast<std::ptrdiff_t>(times.size() - keep);
  std::nth_element(times.begin(), last, times.end());
  std::size_t surplus = times.size() - keep;
  std::erase_if(arrivals_, [&](const auto& one) {
    if (surplus == 0 || one.second > *last) return false;
    --surplus;
    return true;
  });
}

std::string rate_limit_name(std::string_view address) {
  auto parsed = http::parse_address(address);
  if (!parsed || parsed->v4) return std::string(address);
  std::fill(parsed->bytes.begin() + 8, parsed->bytes.end(), std::uint8_t{0});
  return http::to_string(*parsed) + "/64";
}

}  // namespace limner::platform
