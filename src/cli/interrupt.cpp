#include "cli/interrupt.h"

#include <atomic>
#include <csignal>

namespace limner::cli {
namespace {

std::atomic<int> signals_seen{0};
static_assert(std::atomic<int>::is_always_lock_free, "read and written in a signal handler");

void on_signal(int signal) {
  if (signals_seen.fetch_add(1) > 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

InterruptGuard::InterruptGuard()
    : on_interrupt_(std::signal(SIGINT, on_signal)),
      on_terminate_(std::signal(SIGTERM, on_signal)) {
  if (on_interrupt_ != on_signal) signals_seen = 0;
}

InterruptGuard::~InterruptGuard() {
  std::signal(SIGINT, on_interrupt_);
  std::signal(SIGTERM, on_terminate_);
}

bool InterruptGuard::requested() {
  return signals_seen.load() > 0;
}

}  // namespace limner::cli
