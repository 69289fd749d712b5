// /v1/webhooks: what was told to whom, once more by hand, and an account's secret and endpoint.
#pragma once

#include "delivery/webhook_store.h"
#include "gateway/http/blocking.h"
#include "gateway/http/message.h"
#include "gateway/http/router.h"
#include "gateway/webhooks/notifier.h"
#include "platform/http/download.h"

namespace limner::gateway::webhooks {

// The references outlive the routes.
struct WebhookServices {
  delivery::WebhookStore& messages;
  Notifier& notifier;
  http::Blocking& blocking;
  platform::http::NetworkRules network{};  // delivery::webhook_network: what endpoints may be
};

// GET    /v1/webhooks/deliveries?status=&limit=&cursor=   {data[], next_cursor}; scope read
// POST   /v1/webhooks/deliveries/{id}/resend              202 and the delivery
// POST   /v1/webhooks/secret                              201 {secret, previous_valid_until}, once
// GET    /v1/webhooks/endpoint                            {url, events, disabled}; scope read
// PUT    /v1/webhooks/endpoint {url, events}              where jobs that name no webhook are told
// DELETE /v1/webhooks/endpoint                            204
// All are of the caller's own account; the scope is generate where none is named.
void add_routes(http::Router& router, WebhookServices services);

}  // namespace limner::gateway::webhooks
