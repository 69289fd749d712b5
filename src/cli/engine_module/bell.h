// Bell: wakes those that wait for something to have changed: coroutines of a server, and a thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <stop_token>
#include <unordered_set>

namespace limner::cli {

// Any thread may call; outlives those that wait. Who waits reads rings(), looks whether what it
// waits for is there, and then waits for more rings than that, so that none is missed.
class Bell {
 public:
  using Time = std::chrono::steady_clock::time_point;

  std::uint64_t rings() const;
  void ring();

  // Both return when it has rung more than `heard` times, or at `until`; the thread's at `stop`
  // too.
  boost::asio::awaitable<void> wait(std::uint64_t heard, Time until);
  void wait(std::uint64_t heard, Time until, std::stop_token stop);

 private:
  mutable std::mutex mutex_;
  std::condition_variable_any rung_;
  std::uint64_t rings_ = 0;                                // by mutex_
  std::unordered_set<boost::asio::steady_timer*> timers_;  // by mutex_, as what they point to
};

}  // namespace limner::cli
