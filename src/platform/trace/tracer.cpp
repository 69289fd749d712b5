#include "platform/trace/tracer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "platform/http/retry.h"

namespace limner::platform {
namespace {

using std::chrono::milliseconds;

constexpr Millis kComplaintEvery{60'000};
constexpr milliseconds kLongestDelay = std::chrono::seconds(30);

std::uint64_t system_random() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  return generator();
}

template <std::size_t N>
void fill(std::array<std::uint8_t, N>& id, const std::function<std::uint64_t()>& random) {
  do {
    for (std::size_t i = 0; i < N; i += 8) {
      const std::uint64_t word = random();
      for (std::size_t byte = 0; byte < 8; ++byte) {
        id[i + byte] = static_cast<std::uint8_t>(word >> (56 - 8 * byte));
      }
    }
  } while (std::all_of(id.begin(), id.end(), [](std::uint8_t byte) { return byte == 0; }));
}

// 429, 502, 503 and 504 may be tried again, says OTLP; the rest may not.
bool may_pass(int status) {
  return status == 429 || status == 502 || status == 503 || status == 504;
}

}  // namespace

Span::Span(Span&& other) noexcept
    : tracer_(std::exchange(other.tracer_, nullptr)),
      traceparent_(std::move(other.traceparent_)),
      span_(std::move(other.span_)),
      begun_(other.begun_) {}

Span& Span::operator=(Span&& other) noexcept {
  if (this == &other) return *this;
  end();
  tracer_ = std::exchange(other.tracer_, nullptr);
  traceparent_ = std::move(other.traceparent_);
  span_ = std::move(other.span_);
  begun_ = other.begun_;
  return *this;
}

void Span::set(SpanAttribute attribute) {
  if (tracer_ == nullptr) return;
  auto& added = span_->attributes.emplace_back();
  added.first = attribute.name;
  std::visit(
      [&](const auto& value) {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string_view>) {
          added.second = std::string(value);
        } else {
          added.second = value;
        }
      },
      attribute.value);
}

void Span::fail(std::string_view problem) {
  if (tracer_ == nullptr) return;
  span_->failed = true;
  span_->problem = problem;
}

void Span::end() {
  Tracer* const tracer = std::exchange(tracer_, nullptr);
  if (tracer == nullptr) return;
  span_->end = std::max(span_->start, tracer->clock_.now() - begun_ + span_->start);
  tracer->take(std::move(span_));
}

Result<std::unique_ptr<Tracer>> Tracer::make(TracerOptions options, http::Exchange& exchange,
                                             const Clock& clock, Log& log) {
  http::Url url;
  if (!options.endpoint.empty()) {
    std::string whole = options.endpoint;
    while (whole.ends_with('/')) whole.pop_back();
    auto parsed = http::parse_url(whole + "/v1/traces");
    if (!parsed.ok()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("[tracer] the collector's URL: {}", parsed.error().message)};
    }
    url = std::move(*parsed);
  }
  return std::unique_ptr<Tracer>(
      new Tracer(std::move(options), std::move(url), exchange, clock, log));
}

Tracer::Tracer(TracerOptions options, http::Url url, http::Exchange& exchange, const Clock& clock,
               Log& log)
    : options_(std::move(options)),
      url_(std::move(url)),
      exchange_(exchange),
      clock_(clock),
      log_(log) {
  if (enabled()) thread_ = std::jthread([this](std::stop_token stop) { run(stop); });
}

Tracer::~Tracer() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, options_.at_end, [this] { return ended_; })) {
    broken_off_.request_stop();
  }
}

std::uint64_t Tracer::dropped() const {
  const std::scoped_lock lock(mutex_);
  return dropped_;
}

TraceContext Tracer::new_context(const std::optional<TraceContext>& parent) {
  const auto& random = options_.random ? options_.random : system_random;
  TraceContext context;
  fill(context.span_id, random);
  if (parent) {
    context.trace_id = parent->trace_id;
    context.sampled = parent->sampled;
    return context;
  }
  fill(context.trace_id, random);
  // By the id itself, so that services asked about one trace decide the same: its low 56 bits are
  // random, and the upper part of them is recorded (OpenTelemetry, "TraceState: Probability
  // Sampling").
  double place = 0.0;
  for (std::size_t i = 9; i < 16; ++i) place = place * 256.0 + context.trace_id[i];
  context.sampled = place >= (1.0 - options_.sample_ratio) * std::ldexp(1.0, 56);
  return context;
}

Span Tracer::start_span(const SpanStart& start, std::initializer_list<SpanAttribute> attributes) {
  Span span;
  if (!enabled()) {
    span.traceparent_ = start.parent;
    return span;
  }
  const auto parent = parse_traceparent(start.parent);
  const TraceContext context = new_context(parent);
  span.traceparent_ = to_traceparent(context);
  if (!context.sampled) return span;
  span.tracer_ = this;
  span.span_ = std::make_unique<FinishedSpan>();
  span.span_->context = context;
  if (parent) span.span_->parent = parent->span_id;
  span.span_->name = start.name;
  span.span_->kind = start.kind;
  span.begun_ = clock_.now();
  const Millis now = clock_.wall();
  span.span_->start = std::min(start.started_at.value_or(now), now);
  span.begun_ -= now - span.span_->start;
  for (const SpanAttribute& attribute : attributes) span.set(attribute);
  return span;
}

void Tracer::take(std::unique_ptr<FinishedSpan> span) {
  bool full = false;
  {
    const std::scoped_lock lock(mutex_);
    if (waiting_.size() >= options_.most_waiting) {
      ++dropped_;
      return;
    }
    waiting_.push_back(std::move(span));
    full = waiting_.size() == options_.most_in_batch;
  }
  if (full) changed_.notify_all();
}

void Tracer::run(std::stop_token stop) {
  while (true) {
    const std::vector<FinishedSpan> batch = next_batch(stop);
    if (batch.empty() && stop.stop_requested()) break;
    if (!batch.empty()) send(batch, stop);
  }
  const std::scoped_lock lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

std::vector<FinishedSpan> Tracer::next_batch(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, stop, options_.batch_every,
                    [this] { return waiting_.size() >= options_.most_in_batch; });
  std::vector<FinishedSpan> batch;
  while (!waiting_.empty() && batch.size() < options_.most_in_batch) {
    batch.push_back(std::move(*waiting_.front()));
    waiting_.pop_front();
  }
  return batch;
}

void Tracer::send(const std::vector<FinishedSpan>& batch, std::stop_token stop) {
  if (broken_off_.stop_requested()) return lose(batch.size(), "there was no time left");
  const std::string body = to_otlp_json(batch, options_);
  milliseconds delay = options_.first_delay;
  std::string problem;
  for (int tried = 1;; ++tried) {
    milliseconds wait = delay;
    const Outcome outcome = attempt(body, wait, problem);
    if (outcome == Outcome::kTaken) return;
    // At the end there is no time to wait for a collector that is not there.
    if (outcome == Outcome::kRefused || tried >= options_.attempts || stop.stop_requested()) break;
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, stop, std::min(wait, kLongestDelay), [] { return false; });
    delay *= 2;
  }
  lose(batch.size(), problem);
}

Tracer::Outcome Tracer::attempt(std::string_view body, milliseconds& wait, std::string& problem) {
  http::Request request;
  request.method = "POST";
  request.url = url_;
  request.headers = options_.headers;
  request.headers.emplace_back("Content-Type: application/json");
  request.body = {reinterpret_cast<const std::uint8_t*>(body.data()), body.size()};
  request.timeout = options_.timeout;
  request.stop = broken_off_.get_token();
  const auto reply = exchange_.send(request);
  if (!reply.ok()) {
    problem = reply.error().message;
    return reply.error().retryable ? Outcome::kAgain : Outcome::kRefused;
  }
  if (reply->status >= 200 && reply->status < 300) {
    look_at_rejected(reply->text());
    return Outcome::kTaken;
  }
  problem = fmt::format("the collector answered {}", reply->status);
  const std::chrono::system_clock::time_point now(clock_.wall());
  const auto asked = http::parse_retry_after(reply->header("retry-after"), now);
  if (asked) wait = std::max<milliseconds>(wait, *asked);
  return may_pass(reply->status) ? Outcome::kAgain : Outcome::kRefused;
}

// {"partialSuccess": {"rejectedSpans": "3", "errorMessage": "..."}} where not all were taken.
void Tracer::look_at_rejected(std::string_view reply) {
  const auto body = nlohmann::json::parse(reply, nullptr, false);
  if (!body.is_object() || !body.contains("partialSuccess")) return;
  const auto& partial = body["partialSuccess"];
  if (!partial.is_object() || !partial.contains("rejectedSpans")) return;
  const auto& count = partial["rejectedSpans"];
  std::uint64_t rejected = 0;
  if (count.is_number_unsigned()) rejected = count.get<std::uint64_t>();
  if (count.is_string()) {
    const auto& text = count.get_ref<const std::string&>();
    std::from_chars(text.data(), text.data() + text.size(), rejected);
  }
  if (rejected > 0) lose(std::min<std::uint64_t>(rejected, options_.most_in_batch), "rejected");
}

void Tracer::lose(std::uint64_t spans, std::string_view why) {
  {
    const std::scoped_lock lock(mutex_);
    dropped_ += spans;
  }
  const Millis now = clock_.now();
  if (complained_ && now - *complained_ < kComplaintEvery) return;
  complained_ = now;
  log_.warning("spans were lost: the collector did not take them",
               {{"spans", static_cast<std::int64_t>(spans)}, {"error", why}});
}

}  // namespace limner::platform
