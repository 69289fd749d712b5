// Admission: may another job wait? Pure.
#pragma once

#include <chrono>
#include <optional>

#include "base/error.h"
#include "queue/tier_shares.h"

namespace limner::queue {

struct AdmissionLimits {
  PerTier<std::size_t> most_waiting = {2'000, 10'000, 50'000};
  std::size_t most_per_account = 1'000;
};

struct Refusal {
  Error error;
  bool account_limit = false;  // the account's own limit (429), not a full queue (503)
  std::chrono::seconds retry_after{1};
};

struct AdmissionState {
  contract::Tier tier = contract::Tier::kRelax;
  std::size_t waiting_in_tier = 0;
  std::size_t waiting_of_account = 0;
  // In which the tier starts one job at present; 0 while nobody knows.
  double seconds_per_start = 0.0;
};

// Retry-After is the time in which a hundredth of the limit is worked off, from 1 to 120 s: soon
// enough to keep the queue full, late enough that the same client does not find it full again.
std::optional<Refusal> refuse(const AdmissionState& state, const AdmissionLimits& limits);

}  // namespace limner::queue
