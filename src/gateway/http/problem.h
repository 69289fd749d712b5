// Problems: how an error looks to a client (RFC 9457), the same for every route.
#pragma once

#include <exception>
#include <string_view>

#include "base/error.h"
#include "gateway/http/message.h"

namespace limner::gateway::http {

// The one table from our codes to HTTP's.
beast_http::status status_of(ErrorCode code);

// The Error's own message, except of kInternal and kIo, whose text stays inside (the log has it).
Problem problem_of(const Error& error);
// ProblemFailure and Failure as they say; anything else is a 500 without its text.
Problem problem_of(const std::exception_ptr& thrown);

// application/problem+json with type, title, status, detail (made a sentence: a capital, a full
// stop, no "[place]" before it), instance, code and errors; with
// Retry-After (1 to 120 s) on 429 and 503. `instance` is "urn:limner:request:ID".
Response problem_response(const Problem& problem, std::string_view request_id);

}  // namespace limner::gateway::http
