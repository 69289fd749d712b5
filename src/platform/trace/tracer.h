// Tracer: spans of what the service does, sent to an OpenTelemetry collector by OTLP/HTTP with JSON
// bodies (opentelemetry.io/docs/specs/otlp, 1.0).
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "platform/clock.h"
#include "platform/http/exchange.h"
#include "platform/trace/trace_context.h"

namespace limner::platform {

// Names after OpenTelemetry's semantic conventions where they have one: "http.route",
// "http.response.status_code"; our own begin with "limner.". No prompts, no keys.
struct SpanAttribute {
  std::string_view name;
  std::variant<std::string_view, std::int64_t, double, bool> value;
};

enum class SpanKind { kInternal = 1, kServer = 2, kClient = 3, kProducer = 4, kConsumer = 5 };

struct SpanStart {
  std::string_view name{};    // the same for every occurrence: "POST /v1/generations", "denoise"
  std::string_view parent{};  // a traceparent; "" or malformed: a new trace
  SpanKind kind = SpanKind::kInternal;
  // When it began, since 1970, for what began before anybody could say so (a job's wait).
  std::optional<Millis> started_at{};
};

// What a span becomes when it has ended.
struct FinishedSpan {
  TraceContext context{};
  std::optional<std::array<std::uint8_t, 8>> parent{};
  std::string name{};
  SpanKind kind = SpanKind::kInternal;
  Millis start{}, end{};  // since 1970
  std::vector<std::pair<std::string, std::variant<std::string, std::int64_t, double, bool>>>
      attributes{};
  bool failed = false;
  std::string problem{};  // of a failed one
};

class Tracer;

// One thing that takes time. Movable, used by one thread at a time; ends when it is destroyed. One
// that is not recorded (no collector, or not in the sample) does nothing and allocates nothing but
// its traceparent.
class Span {
 public:
  Span() = default;
  Span(Span&& other) noexcept;
  Span& operator=(Span&& other) noexcept;
  ~Span() { end(); }

  // For what happens inside, here or elsewhere: kept in a job, sent as a header. Of a span that is
  // not recorded because there is no collector: its parent's, as it came.
  const std::string& traceparent() const { return traceparent_; }

  void set(SpanAttribute attribute);
  void fail(std::string_view problem);  // one sentence
  void end();                           // doing it twice is doing it once

 private:
  friend class Tracer;
  Tracer* tracer_ = nullptr;  // null: not recorded, or ended
  std::string traceparent_{};
  std::unique_ptr<FinishedSpan> span_{};
  Millis begun_{};  // by the clock that never goes back
};

struct TracerOptions {
  std::string endpoint{};  // "http://127.0.0.1:4318"; /v1/traces is added. "": nothing is recorded
  std::vector<std::string> headers{};  // whole lines, from parse_otlp_headers
  std::string service_name = "limner";
  std::string instance{};  // service.instance.id: which of several this one is; "": left out
  double sample_ratio = 1.0;
  std::size_t most_waiting = 4'096;  // ended spans; those beyond are dropped and counted
  std::size_t most_in_batch = 512;
  std::chrono::milliseconds batch_every = std::chrono::seconds(2);
  std::chrono::milliseconds timeout = std::chrono::seconds(10);            // of one request
  int attempts = 4;                                                        // of one batch
  std::chrono::milliseconds first_delay = std::chrono::milliseconds(500);  // doubled each time
  std::chrono::milliseconds at_end = std::chrono::seconds(2);  // for what waits at the destruction
  std::function<std::uint64_t()> random{};                     // absent: the system's
};

// The body of one export.
std::string to_otlp_json(std::span<const FinishedSpan> spans, const TracerOptions& options);

// Safe to call from many threads; starting and ending a span never waits for the network. One
// thread of its own sends. Outlives its spans.
class Tracer {
 public:
  // Errors: kInvalidArgument (an endpoint that is no URL). The references must outlive the tracer.
  static Result<std::unique_ptr<Tracer>> make(TracerOptions options, http::Exchange& exchange,
                                              const Clock& clock, Log& log);
  ~Tracer();  // sends what waits, for TracerOptions::at_end at most

  // The client's decision whether to record holds where there is a parent; else sample_ratio.
  Span start_span(const SpanStart& start, std::initializer_list<SpanAttribute> attributes = {});

  bool enabled() const { return !options_.endpoint.empty(); }
  std::uint64_t dropped() const;  // spans: no room, refused or not taken by the collector

 private:
  friend class Span;
  Tracer(TracerOptions options, http::Url url, http::Exchange& exchange, const Clock& clock,
         Log& log);

  std::uint64_t random();
  TraceContext new_context(const std::optional<TraceContext>& parent);
  void take(std::unique_ptr<FinishedSpan> span);
  void run(std::stop_token stop);
  std::vector<FinishedSpan> next_batch(std::stop_token stop);
  void send(const std::vector<FinishedSpan>& batch, std::stop_token stop);
  enum class Outcome { kTaken, kAgain, kRefused };
  Outcome attempt(std::string_view body, std::chrono::milliseconds& wait, std::string& problem);
  void look_at_rejected(std::string_view reply);
  void lose(std::uint64_t spans, std::string_view why);

  const TracerOptions options_;
  const http::Url url_;
  http::Exchange& exchange_;
  const Clock& clock_;
  Log& log_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::unique_ptr<FinishedSpan>> waiting_;  // by mutex_
  std::uint64_t dropped_ = 0;                          // by mutex_
  bool ended_ = false;                                 // by mutex_: the thread has sent all
  std::optional<Millis> complained_{};                 // the sending thread's
  std::stop_source broken_off_;                        // ends a request at the destruction
  std::jthread thread_;                                // last: it uses all of the above
};

}  // namespace limner::platform
