#include "gateway/webhooks/notifier.h"

#include <fmt/format.h>

#include "gateway/webhooks/messages.h"
#include "platform/http/url.h"

namespace limner::gateway::webhooks {
namespace {

using contract::Job;
using contract::JobEvent;
using delivery::DeliveryState;
using platform::Millis;

constexpr std::size_t kBatch = 256;
constexpr std::chrono::seconds kLongestWait{1};
constexpr std::chrono::seconds kAfterAnError{2};

// The store's messages, one at a time, with each attempt counted, traced and, where it failed,
// logged.
class Watched final : public delivery::WebhookOutbox {
 public:
  explicit Watched(const NotifierServices& services) : services_(services) {}

  Result<std::vector<delivery::DueWebhook>> take(delivery::Time now, std::size_t limit) override {
    auto taken = services_.messages.take(now, limit);
    if (services_.tracer == nullptr || !taken || taken->empty()) return taken;
    delivery::WebhookDelivery& message = taken->front().delivery;
    span_ = services_.tracer->start_span(
        {.name = "webhook", .parent = message.traceparent, .kind = platform::SpanKind::kClient},
        {{"limner.webhook.id", std::string_view(message.id)}});
    message.traceparent = span_.traceparent();
    return taken;
  }

  Result<void> write(const delivery::DeliveryStep& step) override {
    const delivery::WebhookDelivery& message = step.delivery;
    const bool delivered = message.state == DeliveryState::kDelivered;
    const bool failed = message.state == DeliveryState::kFailed;
    span_.set({"http.response.status_code", std::int64_t{message.last_status}});
    if (!delivered) span_.fail(message.last_error);
    span_.end();
    services_.metrics.webhook_attempt(delivered ? "delivered" : failed ? "failed" : "retried");
    if (!delivered) {
      const auto url = platform::http::parse_url(message.url);
      const std::string shown = url ? url->shown() : "";
      services_.log.write(
          failed ? LogLevel::kWarning : LogLevel::kInfo,
          failed ? "a webhook message was given up" : "a webhook message will be sent again",
          std::vector<LogField>{{"webhook_id", std::string_view(message.id)},
                                {"url", std::string_view(shown)},
                                {"attempt", std::int64_t{message.attempts}},
                                {"status", std::int64_t{message.last_status}},
                                {"error", std::string_view(message.last_error)},
                                {"endpoint_disabled", step.disable_endpoint}});
    }
    return services_.messages.write(step);
  }

 private:
  const NotifierServices& services_;
  platform::Span span_;
};

delivery::WebhookOptions one_at_a_time(const NotifierOptions& options) {
  return {.timeout = options.timeout, .parallel = 1};
}

}  // namespace

Notifier::Notifier(NotifierServices services, ShowJob show, NotifierOptions options)
    : services_(services),
      show_(std::move(show)),
      options_(options),
      sender_(services.exchange, services.clock, one_at_a_time(options)) {}

Notifier::~Notifier() {
  stop();
}

void Notifier::start() {
  threads_.emplace_back([this](const std::stop_token& stop) { run_teller(stop); });
  for (std::size_t i = 0; i < options_.senders; ++i) {
    threads_.emplace_back([this](const std::stop_token& stop) { run_sender(stop); });
  }
}

void Notifier::stop() {
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();
}

void Notifier::on_event(const JobEvent& event) {
  const auto status = contract::status_named(event.type);
  const bool ended = status && contract::is_terminal(*status);
  if (event.type == "preview" || event.type == "image") return;
  {
    const std::scoped_lock lock(mutex_);
    if (event.type == "progress") {
      Progress& progress = progress_[event.job_id];
      if (!progress.wanted.value_or(true)) return;
      progress.newest = event;
    }
    if (ended) progress_.erase(event.job_id);
    grew_ = true;
  }
  outbox_grew_.notify_one();
}

void Notifier::wake_senders() {
  {
    const std::scoped_lock lock(mutex_);
    ++due_;
  }
  messages_due_.notify_all();
}

std::optional<Notifier::Target> Notifier::target(const Job& job) {
  auto request = contract::job_request_from_text(job.request).value_or_throw();
  contract::WebhookChoice& choice = request.webhook;
  if (!choice.url.empty()) {
    return Target{std::move(choice.url), std::move(choice.secret), std::move(choice.events),
                  std::move(request.traceparent)};
  }
  auto own = services_.messages.endpoint(job.account).value_or_throw();
  if (!own) return std::nullopt;
  return Target{std::move(own->url), "", std::move(own->events), std::move(request.traceparent)};
}

std::optional<delivery::NewDelivery> Notifier::message(const queue::OutboxRow& row) {
  const auto event = event_name(row.type);
  if (!event) return std::nullopt;
  auto job = services_.jobs.find(row.job_id).value_or_throw();
  if (!job) return std::nullopt;  // erased: nobody may be told of it any longer
  try {
    const auto to = target(*job);
    if (!to || !wanted(to->events, *event)) return std::nullopt;
    return delivery::NewDelivery{
        .id = message_id(row.job_id, row.event_id),
        .account = job->account,
        .job_id = row.job_id,
        .event = fmt::format("generation.{}", *event),
        .url = to->url,
        .secret = to->secret,
        .body = message_body(*event, row.at, show_(as_of(*job, row), std::nullopt)),
        .traceparent = to->traceparent};
  } catch (const Failure& failure) {
    if (failure.error().code != ErrorCode::kInternal) throw;
    services_.log.error("a webhook message could not be made",
                        {{"request_id", std::string_view(row.job_id)},
                         {"error", std::string_view(failure.what())}});
    return std::nullopt;
  }
}

std::size_t Notifier::add(const std::vector<delivery::NewDelivery>& messages) {
  if (messages.empty()) return 0;
  const std::size_t added = services_.messages.add(messages).value_or_throw();
  if (added > 0) wake_senders();
  return added;
}

Result<std::size_t> Notifier::tell_outbox() {
  std::size_t made = 0;
  try {
    for (;;) {
      const auto rows = services_.jobs.outbox(told_, kBatch).value_or_throw();
      std::vector<delivery::NewDelivery> messages;
      std::optional<Failure> later;
      std::int64_t last = told_;
      for (const queue::OutboxRow& row : rows) {
        try {
          if (auto made_of_row = message(row)) messages.push_back(std::move(*made_of_row));
        } catch (const Failure& failure) {
          later = failure;
          break;
        }
        last = row.id;
      }
      made += add(messages);
      told_ = last;
      if (later) throw *later;
      if (rows.size() < kBatch) break;
    }
    forget_told(false);
    return made;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

void Notifier::forget_told(bool at_once) {
  const Millis now = services_.clock.now();
  if (told_ == deleted_ || (!at_once && now - deleted_at_ < options_.forget_every)) return;
  services_.jobs.outbox_told(told_).value_or_throw();
  deleted_ = told_;
  deleted_at_ = now;
}

std::vector<JobEvent> Notifier::progress_due() {
  const Millis now = services_.clock.now();
  const std::scoped_lock lock(mutex_);
  std::vector<JobEvent> due;
  for (auto& [id, progress] : progress_) {
    const bool too_soon = progress.told_at && now - *progress.told_at < options_.progress_every;
    if (!progress.newest || too_soon) continue;
    progress.told_at = now;
    due.push_back(std::move(*progress.newest));
    progress.newest.reset();
  }
  return due;
}

std::optional<delivery::NewDelivery> Notifier::progress_message(const JobEvent& event) {
  const auto job = services_.jobs.find(event.job_id).value_or_throw();
  if (!job || job->status != contract::JobStatus::kRunning) return std::nullopt;
  const auto to = target(*job);
  const bool asked = to && wanted(to->events, event.type);
  {
    const std::scoped_lock lock(mutex_);
    const auto progress = progress_.find(event.job_id);
    if (progress != progress_.end()) progress->second.wanted = asked;
  }
  if (!asked) return std::nullopt;
  return delivery::NewDelivery{.id = message_id(event.job_id, event.id),
                               .account = job->account,
                               .job_id = event.job_id,
                               .event = "generation.progress",
                               .url = to->url,
                               .secret = to->secret,
                               .body = message_body(event.type, event.at, show_(*job, event)),
                               .traceparent = to->traceparent};
}

Result<std::size_t> Notifier::tell_progress() {
  try {
    std::vector<delivery::NewDelivery> messages;
    for (const JobEvent& event : progress_due()) {
      if (auto message = progress_message(event)) messages.push_back(std::move(*message));
    }
    return add(messages);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<std::size_t> Notifier::send_one(std::stop_token stop) {
  Watched outbox(services_);
  return sender_.run_due(outbox, 1, std::move(stop));
}

void Notifier::run_teller(const std::stop_token& stop) {
  const auto pause = [&](std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    outbox_grew_.wait_for(lock, stop, time, [] { return false; });
  };
  const auto complain = [&](const Error& error) {
    services_.log.warning("webhook messages wait to be written",
                          {{"error", std::string_view(error.message)}});
    pause(kAfterAnError);
  };
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(mutex_);
      outbox_grew_.wait_for(lock, stop, kLongestWait, [this] { return grew_; });
    }
    pause(options_.gather);
    {
      const std::scoped_lock lock(mutex_);
      grew_ = false;
    }
    if (const auto told = tell_outbox(); !told) complain(told.error());
    if (const auto told = tell_progress(); !told) complain(told.error());
  }
  try {
    forget_told(true);
  } catch (const Failure&) {
    // Told again after the next start, under the same ids.
  }
}

void Notifier::run_sender(const std::stop_token& stop) {
  std::uint64_t seen = 0;
  while (!stop.stop_requested()) {
    const auto sent = send_one(stop);
    if (sent && *sent > 0) continue;
    if (!sent) {
      services_.log.warning("webhook messages wait to be sent",
                            {{"error", std::string_view(sent.error().message)}});
    }
    std::unique_lock lock(mutex_);
    messages_due_.wait_for(lock, stop, sent ? kLongestWait : kAfterAnError,
                           [&] { return sent.ok() && due_ != seen; });
    seen = due_;
  }
}

}  // namespace limner::gateway::webhooks
