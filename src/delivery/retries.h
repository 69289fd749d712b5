// Retries: one server's calls, made again while a failure may pass, and held back while it keeps
// failing.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <random>
#include <stop_token>
#include <string>

#include "platform/circuit_breaker.h"
#include "platform/clock.h"
#include "platform/http/exchange.h"

namespace limner::delivery {

struct RetryOptions {
  int attempts = 4;                                                        // of one call
  std::chrono::milliseconds first_delay = std::chrono::milliseconds(200);  // doubled each time
  std::chrono::milliseconds max_delay = std::chrono::seconds(5);
  std::chrono::milliseconds timeout = std::chrono::seconds(60);    // of one attempt
  std::chrono::milliseconds deadline = std::chrono::seconds(180);  // of one call with its waits
  platform::BreakerOptions breaker{};
};

// What one caller grants one call beside its server's options.
struct CallLimits {
  std::chrono::milliseconds within = std::chrono::hours(24);  // RetryOptions::deadline counts too
  std::stop_token stop{};
};

// A status that may be another one next time: 408, 423, 425, 429, and what servers and those before
// them say of themselves (5xx) but 501 and 505.
bool status_may_pass(int status);
// What a status other than 2xx means.
ErrorCode code_of_status(int status);

// Safe to call from many threads.
class Retries {
 public:
  // `name` is for messages; `exchange` and `clock` must outlive this.
  Retries(std::string name, RetryOptions options, platform::http::Exchange& exchange,
          const platform::Clock& clock);

  // One attempt's answer after another, until `check` takes one: it throws Failure for an answer it
  // does not want, retryable where another attempt may help. `request` is asked anew for each
  // attempt (a signature holds its time); its timeout and stop token are set here. Waits double and
  // are shortened by up to half at random; a longer Retry-After is obeyed. Throws Failure:
  // kDeadlineExceeded (retryable) naming the last failure when the time is up, kCancelled when
  // stopped.
  platform::http::Reply call(const std::function<platform::http::Request()>& request,
                             const std::function<void(const platform::http::Reply&)>& check,
                             const CallLimits& limits = {});

 private:
  platform::http::Reply attempt(platform::http::Request request);
  std::chrono::milliseconds delay_after(int attempt);

  const std::string name_;
  const RetryOptions options_;
  platform::http::Exchange& exchange_;
  const platform::Clock& clock_;
  platform::CircuitBreaker breaker_;
  std::mutex mutex_;
  std::minstd_rand random_;  // by mutex_
};

}  // namespace limner::delivery
