#include "platform/trace/tracer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "platform/trace/otlp_headers.h"

namespace limner::platform {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr const char* kParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
constexpr const char* kNotSampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

// A collector in memory: keeps what it is sent, and answers as it is told (200 once that is over).
class Collector final : public http::Exchange {
 public:
  Result<http::Reply> send(const http::Request& request) override {
    std::unique_lock lock(mutex_);
    urls.push_back(request.url.text());
    headers = request.headers;
    bodies.emplace_back(reinterpret_cast<const char*>(request.body.data()), request.body.size());
    if (hangs) {
      changed_.wait(lock, request.stop, [] { return false; });
      return Error{ErrorCode::kCancelled, "stopped"};
    }
    http::Reply reply;
    reply.status = 200;
    if (!statuses.empty()) {
      reply.status = statuses.front();
      statuses.erase(statuses.begin());
    }
    reply.body.assign(answer.begin(), answer.end());
    return reply;
  }

  std::vector<json> spans() const {
    std::vector<json> all;
    for (const std::string& body : bodies) {
      const json whole = json::parse(body);
      const json& sent = whole["resourceSpans"][0]["scopeSpans"][0]["spans"];
      all.insert(all.end(), sent.begin(), sent.end());
    }
    return all;
  }

  // Set before the tracer is made and read after it is gone.
  std::vector<int> statuses;
  std::string answer = "{}";
  bool hangs = false;
  std::vector<std::string> urls, headers, bodies;

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
};

class TracerTest : public testing::Test {
 protected:
  std::unique_ptr<Tracer> make(TracerOptions options) {
    options.endpoint = "http://127.0.0.1:4318";
    options.first_delay = 1ms;
    std::uint64_t next = 0;
    options.random = [next]() mutable { return 0x0102030405060700 + ++next; };
    return Tracer::make(std::move(options), collector_, clock_, log_).value();
  }

  Collector collector_;
  ManualClock clock_{Millis{1'795'272'832'125}};
  NoLog log_;
};

// The shape and the rules are those of opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding",
// and of its example, examples/trace.json: ids in hex, numbers of 64 bits as texts, enums as
// numbers.
TEST_F(TracerTest, SpansAreOtlpJson) {
  auto tracer = make({.headers = {"api-key: secret"}, .instance = "one"});
  {
    Span span = tracer->start_span(
        {.name = "draw", .parent = kParent, .kind = SpanKind::kServer},
        {{"text", "a\xff"}, {"number", std::int64_t{1} << 62}, {"real", 0.5}, {"yes", true}});
    EXPECT_EQ(span.traceparent(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0102030405060701-01");
    clock_.advance(1500ms);
    span.fail("out of memory");
  }
  tracer.reset();
  ASSERT_EQ(collector_.bodies.size(), 1u);
  EXPECT_EQ(collector_.urls[0], "http://127.0.0.1:4318/v1/traces");
  EXPECT_EQ(collector_.headers,
            (std::vector<std::string>{"api-key: secret", "Content-Type: application/json"}));
  const json expected = json::parse(R"({"resourceSpans": [{
    "resource": {"attributes": [
      {"key": "service.name", "value": {"stringValue": "limner"}},
      {"key": "service.version", "value": {"stringValue": ")" LIMNER_VERSION R"("}},
      {"key": "service.instance.id", "value": {"stringValue": "one"}}]},
    "scopeSpans": [{
      "scope": {"name": "limner", "version": ")" LIMNER_VERSION R"("},
      "spans": [{
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        "spanId": "0102030405060701",
        "parentSpanId": "00f067aa0ba902b7",
        "name": "draw",
        "kind": 2,
        "flags": 1,
        "startTimeUnixNano": "1795272832125000000",
        "endTimeUnixNano": "1795272833625000000",
        "attributes": [
          {"key": "text", "value": {"stringValue": "a\ufffd"}},
          {"key": "number", "value": {"intValue": "4611686018427387904"}},
          {"key": "real", "value": {"doubleValue": 0.5}},
          {"key": "yes", "value": {"boolValue": true}}],
        "status": {"code": 2, "message": "out of memory"}}]}]}]})");
  EXPECT_EQ(json::parse(collector_.bodies[0]), expected);
}

TEST_F(TracerTest, AChildContinuesItsParentAndARootStartsATrace) {
  auto tracer = make({});
  std::string inside;
  {
    Span root = tracer->start_span({.name = "root", .parent = "nonsense"});
    const Span child = tracer->start_span({.name = "child", .parent = root.traceparent()});
    inside = child.traceparent();
  }
  tracer.reset();
  const auto spans = collector_.spans();
  ASSERT_EQ(spans.size(), 2u);
  const json &child = spans[0], &root = spans[1];
  EXPECT_EQ(child["name"], "child");
  EXPECT_EQ(child["traceId"], root["traceId"]);
  EXPECT_EQ(child["parentSpanId"], root["spanId"]);
  EXPECT_FALSE(root.contains("parentSpanId"));
  EXPECT_FALSE(root.contains("status"));
  EXPECT_EQ(hex(parse_traceparent(inside)->span_id), child["spanId"]);
}

TEST_F(TracerTest, ASpanMayHaveBegunEarlierAndTheClockMayJump) {
  auto tracer = make({});
  {
    Span wait = tracer->start_span({.name = "wait", .started_at = clock_.wall() - 2s});
    clock_.advance(1s);
    clock_.jump_wall(-3600s);
  }
  tracer.reset();
  const auto spans = collector_.spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0]["startTimeUnixNano"], "1795272830125000000");
  EXPECT_EQ(spans[0]["endTimeUnixNano"], "1795272833125000000");
}

TEST_F(TracerTest, TheClientDecidesWhetherItsTraceIsRecorded) {
  auto tracer = make({.sample_ratio = 0.0});
  {
    const Span recorded = tracer->start_span({.name = "recorded", .parent = kParent});
    const Span left_out = tracer->start_span({.name = "left out", .parent = kNotSampled});
    EXPECT_TRUE(left_out.traceparent().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    EXPECT_TRUE(left_out.traceparent().ends_with("-00"));
    const Span root = tracer->start_span({.name = "root"});
    EXPECT_TRUE(root.traceparent().ends_with("-00"));
  }
  tracer.reset();
  const auto spans = collector_.spans();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0]["name"], "recorded");
}

TEST_F(TracerTest, ARatioOfNewTracesIsRecorded) {
  TracerOptions options{.endpoint = "http://127.0.0.1:4318", .sample_ratio = 0.25};
  options.most_waiting = 100'000;
  auto tracer = Tracer::make(options, collector_, clock_, log_).value();
  int recorded = 0;
  for (int i = 0; i < 4'000; ++i) {
    recorded += tracer->start_span({.name = "root"}).traceparent().ends_with("-01") ? 1 : 0;
  }
  EXPECT_NEAR(recorded, 1'000, 140);  // five standard deviations
}

TEST_F(TracerTest, WithoutACollectorTheParentPassesThrough) {
  auto tracer = Tracer::make({}, collector_, clock_, log_).value();
  EXPECT_FALSE(tracer->enabled());
  {
    Span span = tracer->start_span({.name = "draw", .parent = kParent}, {{"a", true}});
    EXPECT_EQ(span.traceparent(), kParent);
    span.set({"b", 1.0});
    span.fail("no");
  }
  tracer.reset();
  EXPECT_TRUE(collector_.bodies.empty());
}

TEST_F(TracerTest, TriesAgainWhatMayPassAndGivesUpTheRest) {
  collector_.statuses = {503, 429, 200, 400};
  auto tracer = make({.most_in_batch = 1});
  tracer->start_span({.name = "first"}).end();
  tracer->start_span({.name = "second"}).end();
  while (tracer->dropped() == 0) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(tracer->dropped(), 1u);
  tracer.reset();
  const auto spans = collector_.spans();
  ASSERT_EQ(spans.size(), 4u);
  EXPECT_EQ(spans[2]["name"], "first");
  EXPECT_EQ(spans[3]["name"], "second");
}

TEST_F(TracerTest, CountsWhatTheCollectorRejects) {
  collector_.answer = R"({"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}})";
  auto tracer = make({.most_in_batch = 3});
  for (int i = 0; i < 3; ++i) tracer->start_span({.name = "old"}).end();
  while (tracer->dropped() == 0) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(tracer->dropped(), 2u);
}

TEST_F(TracerTest, ACollectorThatHangsHoldsNothingUp) {
  collector_.hangs = true;
  auto tracer = make({.most_waiting = 10, .most_in_batch = 2, .at_end = 50ms});
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 1'000; ++i) tracer->start_span({.name = "busy"}).end();
  EXPECT_GE(tracer->dropped(), 980u);
  tracer.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
}

TEST_F(TracerTest, MovingASpanEndsItOnce) {
  auto tracer = make({});
  {
    Span first = tracer->start_span({.name = "one"});
    Span second = std::move(first);
    first = tracer->start_span({.name = "two"});
    first.end();
    first.end();
    second = Span();
  }
  tracer.reset();
  const auto spans = collector_.spans();
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0]["name"], "two");
  EXPECT_EQ(spans[1]["name"], "one");
}

TEST_F(TracerTest, WantsAUrl) {
  const auto made = Tracer::make({.endpoint = "collector:4318"}, collector_, clock_, log_);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
}

TEST(OtlpHeaders, AreReadAndDecoded) {
  EXPECT_EQ(parse_otlp_headers("api-key=a%20b%2C, x-scope = 1").value(),
            (std::vector<std::string>{"api-key: a b,", "x-scope: 1"}));
  EXPECT_TRUE(parse_otlp_headers("").value().empty());
}

TEST(OtlpHeaders, ThatAreMalformedAreRefusedWithoutTheirValue) {
  for (const char* text : {"hunter2", "=hunter2", "a b=hunter2", "key=hunter2%0d%0aX: y",
                           "key=hunter2%4", "key=hunter2%zz", "key=a,,b=hunter2"}) {
    const auto read = parse_otlp_headers(text);
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_EQ(read.error().message.find("hunter2"), std::string::npos);
  }
}

}  // namespace
}  // namespace limner::platform
