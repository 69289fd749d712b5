#include "platform/http/retry.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <string>

namespace limner::platform::http {
namespace {

using std::chrono::milliseconds;

bool may_pass(int status) {
  constexpr int kStatuses[] = {408, 425, 429, 500, 502, 503, 504};
  return std::find(std::begin(kStatuses), std::end(kStatuses), status) != std::end(kStatuses);
}

// False when the caller stopped it.
bool sleep_for(milliseconds time, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, time, [] { return false; });
  return !stop.stop_requested();
}

}  // namespace

milliseconds backoff(const NetworkRules& rules, int attempt, double random) {
  // 2^20 times anything sensible is beyond max_delay.
  const auto doubled = rules.first_delay * (1LL << std::clamp(attempt - 1, 0, 20));
  const auto longest = std::min<milliseconds>(doubled, rules.max_delay);
  const double share = 1 - 0.5 * std::clamp(random, 0.0, 1.0);
  return milliseconds(static_cast<std::int64_t>(static_cast<double>(longest.count()) * share));
}

std::optional<std::chrono::seconds> parse_retry_after(std::string_view value,
                                                      std::chrono::system_clock::time_point now) {
  if (value.empty()) return std::nullopt;
  if (value.size() <= 9 && value.find_first_not_of("0123456789") == std::string_view::npos) {
    return std::chrono::seconds(std::stoll(std::string(value)));
  }
  std::tm parts{};
  const std::string text(value);
  const char* end = strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  if (end == nullptr || *end != '\0') return std::nullopt;
  const auto when = std::chrono::system_clock::from_time_t(timegm(&parts));
  return std::max(std::chrono::ceil<std::chrono::seconds>(when - now), std::chrono::seconds(0));
}

Error status_error(const Response& response) {
  const std::string where =
      fmt::format("[download] {} answered {}", response.url.shown(), response.status);
  switch (response.status) {
    case 401:
      return {ErrorCode::kUnauthenticated, where + ": it wants a key, or another one"};
    case 403:
      return {ErrorCode::kPermissionDenied, where + ": this is not for whoever asks"};
    case 404:
    case 410:
      return {ErrorCode::kNotFound, where + ": there is nothing at this address"};
    default:
      return {ErrorCode::kUnavailable, where, may_pass(response.status)};
  }
}

void fail_by_status(const Response& response) {
  const auto after =
      parse_retry_after(response.header("retry-after"), std::chrono::system_clock::now());
  throw RetryLater(status_error(response), after);
}

Tries::Tries(const NetworkRules& rules, std::stop_token stop)
    : rules_(rules),
      stop_(std::move(stop)),
      deadline_(std::chrono::steady_clock::now() + rules.total_timeout) {}

void Tries::check() const {
  if (stop_.stop_requested()) {
    throw Failure(ErrorCode::kCancelled, "[download] stopped before it was done");
  }
  if (std::chrono::steady_clock::now() >= deadline_) {
    throw Failure(
        {ErrorCode::kDeadlineExceeded,
         fmt::format(
             "[download] not done within {} s",
             std::chrono::duration_cast<std::chrono::seconds>(rules_.total_timeout).count()),
         true});
  }
}

void Tries::wait_or_throw(const Failure& failure) {
  if (!failure.error().retryable || ++failed_ >= rules_.attempts) throw;
  static thread_local std::mt19937 random(std::random_device{}());
  milliseconds wait = backoff(rules_, failed_, std::uniform_real_distribution<>()(random));
  if (const auto* later = dynamic_cast<const RetryLater*>(&failure); later && later->after()) {
    if (*later->after() > rules_.max_retry_after) {
      Error error = failure.error();
      error.message += fmt::format(" and wants no further try for {} s", later->after()->count());
      throw Failure(std::move(error));
    }
    wait = std::max<milliseconds>(wait, *later->after());
  }
  if (std::chrono::steady_clock::now() + wait >= deadline_) throw;
  if (!sleep_for(wait, stop_)) check();
}

}  // namespace limner::platform::http
