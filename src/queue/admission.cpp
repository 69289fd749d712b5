#include "queue/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace limner::queue {
namespace {

std::chrono::seconds retry_after(std::size_t limit, double seconds_per_start) {
  const double seconds = std::ceil(static_cast<double>(limit) / 100.0 * seconds_per_start);
  return std::chrono::seconds{static_cast<int>(std::clamp(seconds, 1.0, 120.0))};
}

}  // namespace

std::optional<Refusal> refuse(const AdmissionState& state, const AdmissionLimits& limits) {
  const std::size_t most = limits.most_waiting[static_cast<std::size_t>(state.tier)];
  if (state.waiting_in_tier >= most) {
    return Refusal{{ErrorCode::kUnavailable,
                    fmt::format("[queue] the {} queue is full: {} jobs wait, and {} may",
                                contract::name(state.tier), state.waiting_in_tier, most),
                    true},
                   false,
                   retry_after(most, state.seconds_per_start)};
  }
  if (state.waiting_of_account >= limits.most_per_account) {
    return Refusal{{ErrorCode::kUnavailable,
                    fmt::format("[queue] the account has {} jobs waiting, and may have {}",
                                state.waiting_of_account, limits.most_per_account),
                    true},
                   true,
                   retry_after(limits.most_per_account, state.seconds_per_start)};
  }
  return std::nullopt;
}

}  // namespace limner::queue
