// GET and HEAD /v1/artifacts/{key...}: stored pictures, to whoever holds a signed URL.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

boost::asio::awaitable<http::Response> get_artifact(Api& api, http::Request& request);

// The part of an object that a Range header asks for.
struct RangeChoice {
  bool satisfiable = true;                     // else 416
  std::optional<delivery::ByteRange> range{};  // absent: all of it
};

// RFC 9110, section 14: one range of bytes. Anything else (several ranges, other units, broken
// grammar) is answered as if there were no header, as section 14.2 allows.
RangeChoice choose_range(std::string_view header, std::uint64_t size);

}  // namespace limner::gateway::api_v1
