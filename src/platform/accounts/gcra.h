// GCRA, the generic cell rate algorithm (ITU-T I.371, virtual scheduling): a rate with bursts, kept
// in one number per key, the theoretical arrival time. Pure: time comes as a number.
#pragma once

#include <algorithm>
#include <cstdint>

namespace limner::platform {

// Times are in one unit of the caller's choice, e.g. nanoseconds.
struct GcraRate {
  std::int64_t interval = 1;  // > 0; between two requests of cost 1 in the long run
  std::int64_t burst = 1;     // >= 1; cost that may come at once
};

struct GcraAnswer {
  bool allowed = false;
  std::int64_t arrival = 0;    // the theoretical arrival time to keep; unchanged by a refusal
  std::int64_t remaining = 0;  // cost that would be allowed right now
  std::int64_t reset = 0;      // time until all of the burst is there again
  std::int64_t retry = 0;      // of a refused one: time until it would be allowed
};

// `arrival`: as the last answer had it, 0 or anything up to `now` for a new key. `cost` is 1 to
// rate.burst.
constexpr GcraAnswer gcra(std::int64_t arrival, std::int64_t now, GcraRate rate,
                          std::int64_t cost = 1) {
  GcraAnswer answer;
  const std::int64_t full = rate.burst * rate.interval;
  const std::int64_t base = std::max(now, arrival);
  const std::int64_t next = base + cost * rate.interval;
  answer.allowed = next - full <= now;
  answer.arrival = answer.allowed ? next : arrival;
  answer.retry = answer.allowed ? 0 : next - full - now;
  answer.reset = std::max<std::int64_t>(0, answer.arrival - now);
  answer.remaining = std::max<std::int64_t>(0, full - answer.reset) / rate.interval;
  return answer;
}

}  // namespace limner::platform
