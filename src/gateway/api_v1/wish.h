// How a client wants its answer: Prefer (RFC 7240) and Accept (RFC 9110, section 12.5.1).
#pragma once

#include <chrono>
#include <optional>

#include "gateway/http/message.h"
#include "image/encode.h"

namespace limner::gateway::api_v1 {

struct Wish {
  // The first picture's bytes in place of JSON, and in which format it is to be drawn.
  std::optional<image::Format> picture{};
  // `Prefer: wait=N`: answer with the result if it is there within so many seconds.
  std::optional<std::chrono::seconds> wait{};
};

// `format`, where the body named it, is the only one offered. A preference that cannot be read is
// ignored, as RFC 7240 wants. Throws ProblemFailure: 406 when neither JSON nor a picture that can
// be had is acceptable, 400 for an Accept header that breaks its grammar.
Wish read_wish(const http::Request& request, std::optional<image::Format> format);

}  // namespace limner::gateway::api_v1
