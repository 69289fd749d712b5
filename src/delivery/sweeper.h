// What is deleted when: the sweep over old objects, and an account that leaves.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <stop_token>

#include "delivery/store.h"

namespace limner::delivery {

// Nothing: kept for ever.
struct Lifetimes {
  std::optional<std::chrono::seconds> hot = std::chrono::hours(24 * 30);
  std::optional<std::chrono::seconds> warm = std::chrono::hours(24 * 365);
  std::optional<std::chrono::seconds> cold{};
  // What an interrupted put left; longer than any put takes.
  std::chrono::seconds leftovers = std::chrono::hours(24);

  std::optional<std::chrono::seconds> of(Retention retention) const;
};

struct SweepReport {
  std::uint64_t objects = 0, bytes = 0, leftovers = 0;
};

// Removes every object whose lifetime is over at `now`. Ends early, and well, when `stop` is asked
// for; a sweep after a failed one goes on where that one failed. Errors as the store's.
Result<SweepReport> sweep(ArtifactStore& store, const Lifetimes& lifetimes, Time now,
                          std::stop_token stop = {});

// Removes all that an account has stored before a time, in every class. How many objects.
Result<std::uint64_t> remove_account(ArtifactStore& store, const std::string& account,
                                     Time stored_before = Time::max());

}  // namespace limner::delivery
