// What an account may have at once and in a day.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "platform/clock.h"

namespace limner::platform {

// Requests that are being answered, counted per account. Any thread may call; it outlives its
// places.
class ConcurrentRequests {
 public:
  // One request's place, given back at its end.
  class Place {
   public:
    Place(Place&& other) noexcept;
    Place& operator=(Place&&) = delete;
    ~Place();

   private:
    friend class ConcurrentRequests;
    Place(ConcurrentRequests& counts, std::string account)
        : counts_(&counts), account_(std::move(account)) {}
    ConcurrentRequests* counts_;  // null once moved from
    std::string account_;
  };

  // Nothing when the account has `most` already; 0 is no limit.
  std::optional<Place> enter(const std::string& account, std::int64_t most);
  std::int64_t inside(const std::string& account) const;

 private:
  void leave(const std::string& account);

  mutable std::mutex mutex_;
  std::map<std::string, std::int64_t> counts_;  // by mutex_
};

// Images that an account asked for since midnight (UTC): what its usage rows say when it first
// asks, and from then on what was accepted. Any thread may call that may wait for a database.
class DailyImages {
 public:
  // Images that were drawn for an account since a time (milliseconds since 1970).
  using Drawn = std::function<Result<std::int64_t>(const std::string& account, std::int64_t since)>;

  DailyImages(Drawn drawn, const Clock& clock) : drawn_(std::move(drawn)), clock_(clock) {}

  // Counts `images` as accepted. Errors: kUnavailable where the day would have more than `most` (0:
  // no limit), and those of `drawn`.
  Result<void> accept(const std::string& account, std::int64_t images, std::int64_t most);
  // Of a job that was refused, failed or was canceled after all. `accepted_at`: milliseconds since
  // 1970; another day's changes nothing.
  void give_back(const std::string& account, std::int64_t images, std::int64_t accepted_at);

  // Until the next midnight.
  std::int64_t seconds_left() const;

 private:
  const Drawn drawn_;
  const Clock& clock_;
  std::mutex mutex_;
  std::int64_t day_ = -1;                       // by mutex_; since 1970
  std::map<std::string, std::int64_t> counts_;  // by mutex_; of that day
};

}  // namespace limner::platform
