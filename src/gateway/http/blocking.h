// Blocking: threads for what waits (database, disk, hashing), so that those that move bytes never
// do.
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstddef>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

namespace limner::gateway::http {

// Outlives the servers whose handlers use it. Work waits in the order in which it came.
class Blocking {
 public:
  explicit Blocking(std::size_t threads) : pool_(threads) {}
  ~Blocking() { pool_.join(); }
  Blocking(const Blocking&) = delete;
  Blocking& operator=(const Blocking&) = delete;

  boost::asio::thread_pool::executor_type executor() { return pool_.get_executor(); }

 private:
  boost::asio::thread_pool pool_;
};

// `co_await blocking(pool, work)`: calls `work` on a thread of the pool and goes on where the
// coroutine was. Gives what `work` returns and throws what it throws. Work that has begun cannot be
// cancelled.
template <typename Work, typename Value = std::invoke_result_t<Work&>>
boost::asio::awaitable<Value> blocking(Blocking& pool, Work work) {
  namespace asio = boost::asio;
  using Kept = std::conditional_t<std::is_void_v<Value>, std::monostate, Value>;
  std::optional<Kept> value;
  std::exception_ptr error;
  auto start = [&](auto handler) {
    auto home = asio::get_associated_executor(handler);
    // Keeps the home's threads running until the answer is there.
    auto guard = asio::make_work_guard(home);
    asio::post(pool.executor(), [&value, &error, &work, home, guard = std::move(guard),
                                 handler = std::move(handler)]() mutable {
      try {
        if constexpr (std::is_void_v<Value>) {
          work();
          value.emplace();
        } else {
          value.emplace(work());
        }
      } catch (...) {
        error = std::current_exception();
      }
      asio::post(home, std::move(handler));
    });
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(start, asio::use_awaitable);
  if (error) std::rethrow_exception(error);
  if constexpr (!std::is_void_v<Value>) co_return std::move(*value);
}

}  // namespace limner::gateway::http
