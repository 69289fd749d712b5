// When to try again.
#pragma once

#include <chrono>
#include <optional>
#include <stop_token>
#include <string_view>

#include "platform/http/download.h"
#include "platform/http/transfers.h"

namespace limner::platform::http {

// The wait before try number `attempt` + 1, attempt counting from 1; `random` in 0..1 shortens it.
std::chrono::milliseconds backoff(const NetworkRules& rules, int attempt, double random);

// A Retry-After value: seconds, or a date of RFC 9110 (IMF-fixdate) seen from `now`. Nothing for
// what is neither.
std::optional<std::chrono::seconds> parse_retry_after(std::string_view value,
                                                      std::chrono::system_clock::time_point now);

// What a status other than the wanted ones means.
Error status_error(const Response& response);

// A failure that may pass, with the wait the server asked for.
class RetryLater : public Failure {
 public:
  RetryLater(Error error, std::optional<std::chrono::seconds> after)
      : Failure(std::move(error)), after_(after) {}
  std::optional<std::chrono::seconds> after() const { return after_; }

 private:
  std::optional<std::chrono::seconds> after_;
};
// Throws status_error, as a RetryLater where trying again may help.
[[noreturn]] void fail_by_status(const Response& response);

// The tries of one download: counts them, keeps the deadline, waits between.
class Tries {
 public:
  Tries(const NetworkRules& rules, std::stop_token stop);

  // Throws Failure(kCancelled) or Failure(kDeadlineExceeded).
  void check() const;
  // Something came: the count begins again.
  void progressed() { failed_ = 0; }
  // Call while a failure is being handled: waits, or throws it again where it will not pass, where
  // tries or time are used up, or where the server wants a longer wait than the rules allow.
  void wait_or_throw(const Failure& failure);

 private:
  const NetworkRules& rules_;
  std::stop_token stop_;
  std::chrono::steady_clock::time_point deadline_;
  int failed_ = 0;
};

}  // namespace limner::platform::http
