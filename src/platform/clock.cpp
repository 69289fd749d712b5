#include "platform/clock.h"

namespace limner::platform {

Millis SystemClock::now() const {
  return std::chrono::duration_cast<Millis>(std::chrono::steady_clock::now().time_since_epoch());
}

Millis SystemClock::wall() const {
  return std::chrono::duration_cast<Millis>(std::chrono::system_clock::now().time_since_epoch());
}

Millis ManualClock::now() const {
  const std::lock_guard lock(mutex_);
  return now_;
}

Millis ManualClock::wall() const {
  const std::lock_guard lock(mutex_);
  return wall_;
}

void ManualClock::advance(Millis by) {
  const std::lock_guard lock(mutex_);
  now_ += by;
  wall_ += by;
}

void ManualClock::jump_wall(Millis by) {
  const std::lock_guard lock(mutex_);
  wall_ += by;
}

}  // namespace limner::platform
