// CircuitBreaker: stops asking a server, or drawing with a model, that keeps failing, and tries it
// again with one call.
#pragma once

#include <mutex>
#include <string>

#include "base/error.h"
#include "platform/clock.h"

namespace limner::platform {

struct BreakerOptions {
  int failures = 8;                        // in a row, until no more calls are let through
  Millis pause{std::chrono::seconds(20)};  // then one is, and decides
};

// Safe to call from many threads. Each call let through is followed by succeeded() or failed(), or
// by neither where it ended for reasons of the caller and tells nothing.
class CircuitBreaker {
 public:
  // `name` is for messages. `clock` must outlive the breaker.
  CircuitBreaker(std::string name, BreakerOptions options, const Clock& clock)
      : name_(std::move(name)), options_(options), clock_(clock) {}

  // kUnavailable, retryable, while calls are held back.
  Result<void> enter();
  void succeeded();
  void failed();

 private:
  const std::string name_;
  const BreakerOptions options_;
  const Clock& clock_;
  std::mutex mutex_;
  int failures_ = 0;     // in a row; by mutex_
  Millis held_until_{};  // once failures_ are too many; by mutex_
};

}  // namespace limner::platform
