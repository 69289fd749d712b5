#include "delivery/retries.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>

#include "platform/http/retry.h"

namespace limner::delivery {

using platform::http::Reply;
using platform::http::Request;
using std::chrono::milliseconds;

namespace {

// How long the server asks to be left alone; 0 when it does not say.
milliseconds asked_wait(const Reply& reply, const platform::Clock& clock) {
  const std::chrono::system_clock::time_point now(clock.wall());
  const auto asked = platform::http::parse_retry_after(reply.header("retry-after"), now);
  return asked.value_or(std::chrono::seconds(0));
}

// Throws Failure(kCancelled) when stopped.
void sleep(milliseconds time, std::stop_token stop, const std::string& name) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, time, [] { return false; });
  if (stop.stop_requested()) {
    throw Failure(ErrorCode::kCancelled, fmt::format("[{}] the call was stopped", name));
  }
}

}  // namespace

bool status_may_pass(int status) {
  if (status >= 500) return status != 501 && status != 505;
  return status == 408 || status == 423 || status == 425 || status == 429;
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

Reply Retries::call(const std::function<Request()>& request,
                    const std::function<void(const Reply&)>& check, const CallLimits& limits) {
  const platform::Millis allowed = std::min(options_.deadline, limits.within);
  const platform::Millis end = clock_.now() + allowed;
  for (int number = 1;; ++number) {
    milliseconds wait(0);
    std::string last;
    try {
      breaker_.enter().value_or_throw();
      Request next = request();
      next.timeout =
          std::clamp<milliseconds>(end - clock_.now(), milliseconds(1), options_.timeout);
      next.stop = limits.stop;
      Reply reply = attempt(std::move(next));
      wait = asked_wait(reply, clock_);
      check(reply);
      return reply;
    } catch (const Failure& failure) {
      if (!failure.error().retryable || number >= options_.attempts) throw;
      last = failure.error().message;
    }
    wait = std::max(wait, delay_after(number));
    if (clock_.now() + wait >= end) {
      throw Failure(Error{ErrorCode::kDeadlineExceeded,
                          fmt::format("[{}] no good answer within {} ms; the last try: {}", name_,
                                      allowed.count(), last),
                          true});
    }
    sleep(wait, limits.stop, name_);
  }
}

Reply Retries::attempt(Request request) {
  auto reply = exchange_.send(request);
  if (reply.ok() && !status_may_pass(reply->status)) {
    breaker_.succeeded();
  } else if (reply.ok() || reply.error().code != ErrorCode::kCancelled) {
    breaker_.failed();
  }
  return std::move(reply).value_or_throw();
}

milliseconds Retries::delay_after(int attempt) {
  const auto longest = std::min<milliseconds>(
      options_.first_delay * (1LL << std::min(attempt - 1, 20)), options_.max_delay);
  const std::scoped_lock lock(mutex_);
  const double share = std::uniform_real_distribution<double>(0.5, 1.0)(random_);
  return milliseconds(static_cast<std::int64_t>(static_cast<double>(longest.count()) * share));
}

}  // namespace limner::delivery
