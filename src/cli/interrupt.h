// Ctrl-C and SIGTERM as a question that long work asks.
#pragma once

namespace limner::cli {

// Ctrl-C and SIGTERM while this object lives set a flag instead of ending the process; a second one
// ends it at once. May be nested.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool requested();

 private:
  using Handler = void (*)(int);
  Handler on_interrupt_, on_terminate_;  // what was there before
};

}  // namespace limner::cli
