// ModelBreakers: a circuit breaker for every model, shared by the workers.
#pragma once

#include <fmt/format.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "platform/circuit_breaker.h"

namespace limner::worker {

// Any thread may call. References stay valid as long as this.
class ModelBreakers {
 public:
  ModelBreakers(platform::BreakerOptions options, const platform::Clock& clock)
      : options_(options), clock_(clock) {}

  platform::CircuitBreaker& of(const std::string& model) {
    const std::lock_guard lock(mutex_);
    auto& breaker = breakers_[model];
    if (!breaker) {
      breaker = std::make_unique<platform::CircuitBreaker>(fmt::format("model {}", model), options_,
                                                           clock_);
    }
    return *breaker;
  }

 private:
  const platform::BreakerOptions options_;
  const platform::Clock& clock_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<platform::CircuitBreaker>> breakers_;  // by mutex_
};

}  // namespace limner::worker
