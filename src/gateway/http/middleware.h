// The middleware of the service, one function each; service.cpp puts them in order and says why.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "gateway/http/message.h"
#include "platform/accounts/rate_limiter.h"
#include "platform/http/address.h"
#include "platform/metrics/metrics.h"
#include "platform/trace/tracer.h"

namespace limner::gateway::http {

// Who has this key. Called on a thread that moves bytes: answers from memory. Errors:
// kUnauthenticated, kPermissionDenied, kUnavailable.
using Authenticate = std::function<Result<Caller>(std::string_view bearer, std::string_view peer)>;
// Takes one request from an address's or a key's rate. Called as above.
using Limit = std::function<platform::RateAnswer(const Request& request)>;
// Takes a place among the requests of the caller's account that are under way, given back when it
// is destroyed; null where there is none left.
using Enter = std::function<std::shared_ptr<void>(const Request& request)>;

// request.peer becomes the address of who asked the first proxy that is not ours, told by
// X-Forwarded-For; a header from anybody but a trusted proxy is not looked at.
Middleware client_address(std::vector<platform::http::AddressRange> trusted_proxies);

// request.id: the client's X-Request-ID where it is sane (1 to 128 letters, digits and "-_.:/+=@"),
// else a new one. The answer carries it, and all of request.answer_fields.
Middleware request_id();

// limner_requests_total by route and status, and one line of log for each request. A target that no
// route takes counts as "unmatched", what was no request as "malformed".
Middleware observe(platform::Metrics& metrics, Log& log);

// A span from the client's traceparent, or of a new trace; request.traceparent is what to hand on.
Middleware trace(platform::Tracer& tracer);

// What a browser must not do with an answer; a handler's own fields win.
Middleware security_fields(bool tls);

// Lets pages of these origins ("*": of all) read answers, and answers their preflights.
Middleware cross_origin(std::vector<std::string> origins);

// What is thrown below becomes problem+json; the text of the unexpected goes to the log alone.
Middleware error_shape(Log& log);

// Takes from a rate, under the name `policy` in RateLimit and RateLimit-Policy
// (draft-ietf-httpapi-ratelimit-headers-10); 429 when it is used up. `limit` may be absent.
Middleware rate_limit(std::string policy, Limit limit);

// request.caller by "Authorization: Bearer KEY". 401 for a key that is wrong, and without one
// wherever request.open does not say that none is needed.
Middleware authenticate(Authenticate look_up);

// 429 when the caller has no place left; a stream keeps none. `enter` may be absent.
Middleware concurrency(Enter enter);

// Ends the way of what no handler can have, before its body is read.
Middleware refusals();

// Reads the body: up to request.body_limit bytes, or `usual` where that is 0.
Middleware body(std::size_t usual);

// 504 and the end of the handler's waiting after so long.
Middleware deadline(std::chrono::milliseconds limit);

}  // namespace limner::gateway::http
