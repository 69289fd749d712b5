// W3C Trace Context (www.w3.org/TR/trace-context, level 1): the `traceparent` header.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace limner::platform {

struct TraceContext {
  std::array<std::uint8_t, 16> trace_id{};  // not all zero
  std::array<std::uint8_t, 8> span_id{};    // not all zero
  bool sampled = false;                     // the caller records it
};

// "VERSION-TRACEID-SPANID-FLAGS" in lower-case hex. Of versions above 00 the first four fields are
// read and more may follow; ff and everything malformed is nothing: a new trace starts then.
std::optional<TraceContext> parse_traceparent(std::string_view text);

// As version 00.
std::string to_traceparent(const TraceContext& context);

std::string hex(const std::array<std::uint8_t, 16>& id);
std::string hex(const std::array<std::uint8_t, 8>& id);

}  // namespace limner::platform
