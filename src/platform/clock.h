// The two clocks a service needs, handed in so that tests and simulations can stand in for them.
#pragma once

#include <chrono>
#include <mutex>

namespace limner::platform {

using Millis = std::chrono::milliseconds;

// Any thread may call.
class Clock {
 public:
  virtual ~Clock() = default;
  // Since an arbitrary moment; never goes back. For leases, waits and back-offs.
  virtual Millis now() const = 0;
  // Since 1970 (UTC); jumps when somebody sets the clock. For what people and other machines read.
  virtual Millis wall() const = 0;
};

class SystemClock : public Clock {
 public:
  Millis now() const override;
  Millis wall() const override;
};

// Stands still until it is told to move.
class ManualClock : public Clock {
 public:
  explicit ManualClock(Millis wall = Millis{1'700'000'000'000}) : wall_(wall) {}
  Millis now() const override;
  Millis wall() const override;
  void advance(Millis by);    // both clocks
  void jump_wall(Millis by);  // as when somebody sets the clock

 private:
  mutable std::mutex mutex_;
  Millis now_{0};  // by mutex_
  Millis wall_;    // by mutex_
};

}  // namespace limner::platform
