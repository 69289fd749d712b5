#include "delivery/webhook_delivery.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace limner::delivery {
namespace {

using namespace std::chrono_literals;

constexpr std::array<std::chrono::seconds, kWebhookAttempts - 1> kWaits = {5s,  5min, 30min, 2h, 5h,
                                                                           10h, 14h,  20h,   24h};
constexpr std::chrono::seconds kLongestRetryAfter = 24h;
constexpr int kGone = 410;

}  // namespace

std::string_view name(DeliveryState state) {
  switch (state) {
    case DeliveryState::kPending:
      return "pending";
    case DeliveryState::kDelivered:
      return "delivered";
    case DeliveryState::kFailed:
      return "failed";
  }
  return "failed";
}

std::optional<std::chrono::milliseconds> webhook_wait(int attempt, double random) {
  LIMNER_CHECK(attempt >= 1, "attempts count from 1");
  if (attempt >= kWebhookAttempts) return std::nullopt;
  const std::chrono::milliseconds wait = kWaits[static_cast<std::size_t>(attempt - 1)];
  const double share = 0.9 + 0.2 * std::clamp(random, 0.0, 1.0);
  return std::chrono::milliseconds(
      static_cast<std::int64_t>(static_cast<double>(wait.count()) * share));
}

DeliveryStep after_attempt(WebhookDelivery delivery, const AttemptOutcome& outcome, Time now,
                           double random) {
  LIMNER_CHECK(delivery.state == DeliveryState::kPending, "only a pending message is attempted");
  ++delivery.attempts;
  delivery.last_status = outcome.status;
  if (outcome.status >= 200 && outcome.status < 300) {
    delivery.state = DeliveryState::kDelivered;
    delivery.last_error.clear();
    return {std::move(delivery)};
  }
  delivery.last_error =
      outcome.status == 0 ? outcome.error : fmt::format("the receiver answered {}", outcome.status);
  const auto wait = webhook_wait(delivery.attempts, random);
  if (outcome.status == kGone || !wait) {
    delivery.state = DeliveryState::kFailed;
    return {std::move(delivery), true};
  }
  const std::chrono::milliseconds asked =
      std::clamp(outcome.retry_after.value_or(0s), 0s, kLongestRetryAfter);
  delivery.due = now + std::max(*wait, asked);
  return {std::move(delivery)};
}

WebhookDelivery resend(WebhookDelivery delivery, Time now) {
  delivery.state = DeliveryState::kPending;
  delivery.attempts = 0;
  delivery.due = now;
  return delivery;
}

std::string webhook_body(std::string_view type, Time now, std::string_view data) {
  const auto millis = std::chrono::floor<std::chrono::milliseconds>(now);
  const auto seconds = std::chrono::floor<std::chrono::seconds>(now);
  return fmt::format(R"({{"type":"{}","timestamp":"{:%Y-%m-%dT%H:%M:%S}.{:03}Z","data":{}}})", type,
                     fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)),
                     (millis - seconds).count(), data);
}

}  // namespace limner::delivery
