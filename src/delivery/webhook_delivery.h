// The life of one webhook message: what an attempt's outcome makes of it. Pure: no clock, no
// network, no random source of its own; the row lies in whatever outbox there is.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "base/error.h"
#include "delivery/store.h"

namespace limner::delivery {

enum class DeliveryState {
  kPending,    // to be sent when due
  kDelivered,  // the receiver answered 2xx
  kFailed,     // given up: all attempts made, or the endpoint is gone
};

std::string_view name(DeliveryState state);  // "pending", "delivered", "failed"

// A row of the outbox.
struct WebhookDelivery {
  std::string id{};        // webhook-id: the same in every attempt
  std::string endpoint{};  // whose secrets sign it
  std::string url{};
  std::string body{};  // JSON, sent and signed as it is; 20,000 bytes at most
  DeliveryState state = DeliveryState::kPending;
  int attempts = 0;           // made so far
  Time due{};                 // of the next attempt, while pending
  int last_status = 0;        // HTTP; 0 when no answer came
  std::string last_error{};   // "" after a success
  std::string traceparent{};  // W3C Trace Context of what it tells of; "": none
};

// What came of one attempt.
struct AttemptOutcome {
  int status = 0;                                     // 0: no answer
  std::optional<std::chrono::seconds> retry_after{};  // what the receiver asked for
  std::string error{};                                // why there is no answer
};

struct DeliveryStep {
  WebhookDelivery delivery;       // the row to write
  bool disable_endpoint = false;  // it answered 410, or this message's last attempt failed
};

// From the message's start: 0 s, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h, each after
// the attempt before it: 10 attempts over 75.6 hours (the specification's example schedule).
inline constexpr int kWebhookAttempts = 10;

// The wait after attempt number `attempt` (from 1); nothing after the last. `random` in 0..1
// spreads it over 90 to 110 %.
std::optional<std::chrono::milliseconds> webhook_wait(int attempt, double random);

// 2xx delivers; 410 ends it and disables the endpoint; all else, redirects too, is tried again.
// A Retry-After that asks for longer than the schedule is obeyed up to a day. `delivery` must be
// pending.
DeliveryStep after_attempt(WebhookDelivery delivery, const AttemptOutcome& outcome, Time now,
                           double random);

// The same message once more from the beginning of the schedule, for whoever asks by hand.
WebhookDelivery resend(WebhookDelivery delivery, Time now);

// {"type": TYPE, "timestamp": NOW, "data": DATA}: `data` is JSON already.
std::string webhook_body(std::string_view type, Time now, std::string_view data);

}  // namespace limner::delivery
