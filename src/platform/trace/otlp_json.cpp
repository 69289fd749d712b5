// OTLP's messages as JSON: protobuf's JSON mapping, but ids in hex, enums as numbers, and 64-bit
// numbers as texts (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding").
#include <cmath>
#include <nlohmann/json.hpp>

#include "platform/trace/tracer.h"

namespace limner::platform {
namespace {

using nlohmann::json;

json text_value(std::string_view text) {
  return {{"stringValue", text}};
}

struct ToValue {
  json operator()(const std::string& text) const { return text_value(text); }
  json operator()(std::int64_t number) const { return {{"intValue", std::to_string(number)}}; }
  json operator()(bool yes) const { return {{"boolValue", yes}}; }
  json operator()(double number) const {
    if (std::isfinite(number)) return {{"doubleValue", number}};
    const char* const name = std::isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity";
    return {{"doubleValue", name}};
  }
};

json attribute(std::string_view name, json value) {
  return {{"key", name}, {"value", std::move(value)}};
}

// 1970 plus `time`, in nanoseconds.
std::string nanoseconds(Millis time) {
  return std::to_string(std::chrono::nanoseconds(time).count());
}

json span_json(const FinishedSpan& span) {
  json attributes = json::array();
  for (const auto& [name, value] : span.attributes) {
    attributes.push_back(attribute(name, std::visit(ToValue{}, value)));
  }
  json made = {{"traceId", hex(span.context.trace_id)},
               {"spanId", hex(span.context.span_id)},
               {"name", span.name},
               {"kind", static_cast<int>(span.kind)},
               {"startTimeUnixNano", nanoseconds(span.start)},
               {"endTimeUnixNano", nanoseconds(span.end)},
               {"flags", span.context.sampled ? 1 : 0},
               {"attributes", std::move(attributes)}};
  if (span.parent) made["parentSpanId"] = hex(*span.parent);
  if (span.failed) made["status"] = {{"code", 2}, {"message", span.problem}};
  return made;
}

}  // namespace

std::string to_otlp_json(std::span<const FinishedSpan> spans, const TracerOptions& options) {
  json resource = json::array({attribute("service.name", text_value(options.service_name)),
                               attribute("service.version", text_value(LIMNER_VERSION))});
  if (!options.instance.empty()) {
    resource.push_back(attribute("service.instance.id", text_value(options.instance)));
  }
  json all = json::array();
  for (const FinishedSpan& span : spans) all.push_back(span_json(span));
  const json scope_spans = {{"scope", {{"name", "limner"}, {"version", LIMNER_VERSION}}},
                            {"spans", std::move(all)}};
  const json body = {
      {"resourceSpans", json::array({{{"resource", {{"attributes", resource}}},
                                      {"scopeSpans", json::array({scope_spans})}}})}};
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace limner::platform
