// RateLimiter: GCRA per key or per address, in bounded memory.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "platform/clock.h"

namespace limner::platform {

struct Rate {
  std::int64_t per_minute = 0;  // 0: no limit; at most 60,000,000
  std::int64_t burst = 1;       // >= 1
};

// What the fields RateLimit, RateLimit-Policy and Retry-After want. Seconds are rounded up.
struct RateAnswer {
  bool allowed = true;
  std::int64_t limit = 0;              // requests that may come at once; 0: there is no limit
  std::chrono::seconds window{};       // in which so many come back
  std::int64_t remaining = 0;          // requests that would be allowed right now
  std::chrono::seconds reset{};        // until `remaining` is `limit` again
  std::chrono::seconds retry_after{};  // of a refused request
};

// Any thread may call. `clock` must outlive the limiter.
class RateLimiter {
 public:
  // Remembers `most` names at once; beyond that, the names with most left of their rate are
  // forgotten, which gives them a new burst.
  explicit RateLimiter(const Clock& clock, std::size_t most = 100'000)
      : clock_(clock), most_(most) {}

  RateAnswer take(std::string_view name, const Rate& rate);

  std::size_t remembered() const;

 private:
  void forget();  // with mutex_ held

  const Clock& clock_;
  const std::size_t most_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::int64_t> arrivals_;  // by mutex_; nanoseconds
};

// The name under which an address is limited: itself, or the /64 network of an IPv6 address, since
// whoever has one of its addresses has all. Text that is no address stays as it is.
std::string rate_limit_name(std::string_view address);

}  // namespace limner::platform
