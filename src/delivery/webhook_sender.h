// Sends webhook messages that are due: signed, to public addresses only, without following
// redirects.
#pragma once

#include <chrono>
#include <mutex>
#include <random>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "delivery/webhook_delivery.h"
#include "delivery/webhook_signature.h"
#include "platform/clock.h"
#include "platform/http/exchange.h"

namespace limner::delivery {

struct DueWebhook {
  WebhookDelivery delivery;
  std::vector<WebhookSecret> secrets;  // of its endpoint: one, or the new and the old one
};

// Where messages wait. `take` and `write` are called from the thread that runs run_due() and from
// its helpers.
class WebhookOutbox {
 public:
  virtual ~WebhookOutbox() = default;
  // Pending messages due at `now`, oldest first, `limit` at most.
  virtual Result<std::vector<DueWebhook>> take(Time now, std::size_t limit) = 0;
  // In one transaction: the row, and the endpoint disabled where the step says so.
  virtual Result<void> write(const DeliveryStep& step) = 0;
};

struct WebhookOptions {
  std::chrono::milliseconds timeout = std::chrono::seconds(20);  // of one attempt
  int parallel = 8;      // attempts at once, so that a receiver that hangs delays few others
  int per_endpoint = 2;  // of those to one endpoint
};

// What webhooks may reach: https on public addresses, and what `allow` lists (LIMNER_EGRESS_ALLOW).
platform::http::NetworkRules webhook_network(std::vector<platform::http::AddressRange> allow);

// That a URL can be an endpoint, said when it is registered; the address behind a name is looked at
// when a message is sent. Errors: kInvalidArgument (no URL, plain http although `rules` allow no
// address), kPermissionDenied (an address that is not public and not allowed).
Result<void> check_webhook_url(std::string_view url, const platform::http::NetworkRules& rules);

// Safe to call from many threads, as far as the outbox is.
class WebhookSender {
 public:
  // `exchange` (over webhook_network) and `clock` must outlive the sender.
  WebhookSender(platform::http::Exchange& exchange, const platform::Clock& clock,
                WebhookOptions options = {});

  // Sends once, now. No outcome is an exception or an error: a failure is one like any other.
  AttemptOutcome attempt(const DueWebhook& due, std::stop_token stop = {});

  // One round: takes what is due, sends each once and writes what came of it. How many were sent.
  // A message whose writing failed is sent again (the receiver knows it by its id). With `stop`
  // attempts under way are broken off and not counted. Errors: the outbox's first.
  Result<std::size_t> run_due(WebhookOutbox& outbox, std::size_t limit = 64,
                              std::stop_token stop = {});

 private:
  AttemptOutcome send(const DueWebhook& due, std::stop_token stop);  // throws Failure
  double random();

  platform::http::Exchange& exchange_;
  const platform::Clock& clock_;
  const WebhookOptions options_;
  std::mutex mutex_;
  std::minstd_rand random_;  // by mutex_
};

}  // namespace limner::delivery
