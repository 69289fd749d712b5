#include "delivery/retries.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

namespace limner::delivery {

using platform::http::Reply;
using std::chrono::milliseconds;

bool status_may_pass(int status) {
  constexpr int kStatuses[] = {408, 429, 500, 502, 503, 504};
  return std::find(std::begin(kStatuses), std::end(kStatuses), status) != std::end(kStatuses);
}

ErrorCode code_of_status(int status) {
  switch (status) {
    case 401:
      return ErrorCode::kUnauthenticated;
    case 403:
      return ErrorCode::kPermissionDenied;
    case 404:
      return ErrorCode::kNotFound;
    case 416:
      return ErrorCode::kInvalidArgument;
    default:
      return status_may_pass(status) ? ErrorCode::kUnavailable : ErrorCode::kIo;
  }
}

Retries::Retries(std::string name, RetryOptions options, platform::http::Exchange& exchange,
                 const platform::Clock& clock)
    : name_(std::move(name)),
      options_(options),
      exchange_(exchange),
      clock_(clock),
      breaker_(name_, options.breaker, clock),
      random_(std::random_device{}()) {}

Reply Retries::call(const std::function<platform::http::Request()>& request,
                    const std::function<void(const Reply&)>& check) {
  const platform::Millis end = clock_.now() + options_.deadline;
  for (int number = 1;; ++number) {
    try {
      breaker_.enter().value_or_throw();
      platform::http::Request next = request();
      next.timeout = std::min<milliseconds>(options_.timeout, end - clock_.now());
      auto reply = exchange_.send(next);
      if (!reply || status_may_pass(reply->status)) {
        breaker_.failed();
      } else {
        breaker_.succeeded();
      }
      Reply got = std::move(reply).value_or_throw();
      check(got);
      return got;
    } catch (const Failure& failure) {
      if (!failure.error().retryable || number >= options_.attempts) throw;
    }
    wait(number, end - clock_.now());
  }
}

void Retries::wait(int attempt, milliseconds left) {
  const auto longest = std::min<milliseconds>(
      options_.first_delay * (1LL << std::min(attempt - 1, 20)), options_.max_delay);
  std::unique_lock lock(mutex_);
  const double share = std::uniform_real_distribution<double>(0.5, 1.0)(random_);
  lock.unlock();
  const milliseconds time(static_cast<std::int64_t>(static_cast<double>(longest.count()) * share));
  if (time >= left) {
    throw Failure(Error{
        ErrorCode::kDeadlineExceeded,
        fmt::format("[{}] no good answer within {} ms", name_, options_.deadline.count()), true});
  }
  std::this_thread::sleep_for(time);
}

}  // namespace limner::delivery
