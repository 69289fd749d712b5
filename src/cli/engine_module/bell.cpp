#include "cli/engine_module/bell.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>

namespace limner::cli {

namespace asio = boost::asio;

std::uint64_t Bell::rings() const {
  const std::lock_guard lock(mutex_);
  return rings_;
}

void Bell::ring() {
  const std::lock_guard lock(mutex_);
  ++rings_;
  for (asio::steady_timer* timer : timers_) timer->cancel();
  rung_.notify_all();
}

asio::awaitable<void> Bell::wait(std::uint64_t heard, Time until) {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  const auto remove = [this](asio::steady_timer* done) {
    const std::lock_guard lock(mutex_);
    timers_.erase(done);
  };
  const std::unique_ptr<asio::steady_timer, decltype(remove)> listed(&timer, remove);
  // A timer is not safe for two threads at once: it is armed under the mutex that ring() holds.
  const auto arm = [&](auto handler) {
    const std::lock_guard lock(mutex_);
    timers_.insert(&timer);
    timer.expires_at(rings_ != heard ? Time::min() : until);
    timer.async_wait(std::move(handler));
  };
  const auto token = asio::as_tuple(asio::use_awaitable);
  co_await asio::async_initiate<decltype(token), void(boost::system::error_code)>(arm, token);
}

void Bell::wait(std::uint64_t heard, Time until, std::stop_token stop) {
  std::unique_lock lock(mutex_);
  rung_.wait_until(lock, stop, until, [&] { return rings_ != heard; });
}

}  // namespace limner::cli
