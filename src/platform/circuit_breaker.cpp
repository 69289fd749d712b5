#include "platform/circuit_breaker.h"

#include <fmt/format.h>

namespace limner::platform {

Result<void> CircuitBreaker::enter() {
  const std::scoped_lock lock(mutex_);
  if (failures_ < options_.failures) return {};
  const Millis now = clock_.now();
  if (now < held_until_) {
    return Error{ErrorCode::kUnavailable,
                 fmt::format("[{}] it failed {} times in a row and is left alone for {} ms more",
                             name_, failures_, (held_until_ - now).count()),
                 true};
  }
  // One call goes to see; the others wait for what it finds.
  held_until_ = now + options_.pause;
  return {};
}

void CircuitBreaker::succeeded() {
  const std::scoped_lock lock(mutex_);
  failures_ = 0;
}

void CircuitBreaker::failed() {
  const std::scoped_lock lock(mutex_);
  if (++failures_ >= options_.failures) held_until_ = clock_.now() + options_.pause;
}

}  // namespace limner::platform
