#include "delivery/webhook_sender.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "delivery/crypto.h"
#include "platform/http/retry.h"
#include "platform/trace/trace_context.h"

namespace limner::delivery {
namespace {

using platform::http::NetworkRules;

constexpr std::size_t kLargestBody = 20'000;
constexpr std::uint64_t kLargestReply = 4096;  // nothing of it is used

Time wall(const platform::Clock& clock) {
  return Time(clock.wall());
}

// At most `per_endpoint` of each endpoint; the others come with a later round.
std::vector<DueWebhook> spread(std::vector<DueWebhook> due, int per_endpoint) {
  std::map<std::string, int> count;
  std::vector<DueWebhook> kept;
  for (DueWebhook& message : due) {
    if (++count[message.delivery.endpoint] <= per_endpoint) kept.push_back(std::move(message));
  }
  return kept;
}

}  // namespace

NetworkRules webhook_network(std::vector<platform::http::AddressRange> allow) {
  NetworkRules rules;
  rules.allow = std::move(allow);
  rules.connect_timeout = std::chrono::seconds(10);
  rules.minimum_speed = 1;
  rules.redirects = 0;
  return rules;
}

Result<void> check_webhook_url(std::string_view text, const NetworkRules& rules) {
  const auto url = platform::http::parse_url(text);
  if (!url) return url.error();
  if (!url->https && rules.allow.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[webhook] want an https URL, got {}", url->shown())};
  }
  std::string_view host = url->host;
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  const auto address = platform::http::parse_address(host);
  if (!address) return {};
  const auto covers = [&](const auto& range) { return range.contains(*address); };
  if (std::any_of(rules.allow.begin(), rules.allow.end(), covers)) return {};
  const auto special = platform::http::special_use(*address);
  if (special.empty() && url->https) return {};
  return Error{ErrorCode::kPermissionDenied,
               fmt::format("[webhook] {} is {}, which webhooks may not reach (LIMNER_EGRESS_ALLOW "
                           "lists exceptions)",
                           host, special.empty() ? "asked by plain http" : special)};
}

WebhookSender::WebhookSender(platform::http::Exchange& exchange, const platform::Clock& clock,
                             WebhookOptions options)
    : exchange_(exchange), clock_(clock), options_(options), random_(std::random_device{}()) {}

double WebhookSender::random() {
  const std::scoped_lock lock(mutex_);
  return std::uniform_real_distribution<double>(0.0, 1.0)(random_);
}

AttemptOutcome WebhookSender::attempt(const DueWebhook& due, std::stop_token stop) {
  try {
    return send(due, std::move(stop));
  } catch (const Failure& failure) {
    return {.error = failure.error().message};
  }
}

AttemptOutcome WebhookSender::send(const DueWebhook& due, std::stop_token stop) {
  const WebhookDelivery& delivery = due.delivery;
  if (delivery.body.size() > kLargestBody) {
    return {.error = fmt::format("[webhook] want a body of at most {} bytes, got {}", kLargestBody,
                                 delivery.body.size())};
  }
  auto headers =
      webhook_headers(delivery.id, std::chrono::floor<std::chrono::seconds>(wall(clock_)),
                      delivery.body, due.secrets)
          .value_or_throw();
  headers.push_back("Content-Type: application/json");
  if (platform::parse_traceparent(delivery.traceparent)) {
    headers.push_back("traceparent: " + delivery.traceparent);
  }
  const auto reply = exchange_
                         .send({.method = "POST",
                                .url = platform::http::parse_url(delivery.url).value_or_throw(),
                                .headers = std::move(headers),
                                .body = bytes_of(delivery.body),
                                .max_reply = kLargestReply,
                                .timeout = options_.timeout,
                                .stop = std::move(stop)})
                         .value_or_throw();
  return {
      .status = reply.status,
      .retry_after = platform::http::parse_retry_after(reply.header("retry-after"), wall(clock_))};
}

Result<std::size_t> WebhookSender::run_due(WebhookOutbox& outbox, std::size_t limit,
                                           std::stop_token stop) {
  auto taken = outbox.take(wall(clock_), limit);
  if (!taken) return taken.error();
  const std::vector<DueWebhook> due = spread(std::move(*taken), options_.per_endpoint);
  std::atomic<std::size_t> next = 0, sent = 0;
  std::mutex mutex;
  std::optional<Error> first_error;  // by mutex
  const auto work = [&] {
    for (std::size_t i = next++; i < due.size(); i = next++) {
      const AttemptOutcome outcome = attempt(due[i], stop);
      if (stop.stop_requested() && outcome.status == 0) return;
      ++sent;
      const auto written =
          outbox.write(after_attempt(due[i].delivery, outcome, wall(clock_), random()));
      if (written) continue;
      const std::scoped_lock lock(mutex);
      if (!first_error) first_error = written.error();
    }
  };
  {
    std::vector<std::jthread> threads;
    const auto helpers =
        std::min<std::size_t>(static_cast<std::size_t>(std::max(options_.parallel, 1)), due.size());
    for (std::size_t i = 1; i < helpers; ++i) threads.emplace_back(work);
    work();
  }
  if (first_error) return *first_error;
  return sent.load();
}

}  // namespace limner::delivery
