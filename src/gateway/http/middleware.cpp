#include "gateway/http/middleware.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/beast/core/string.hpp>
#include <memory>
#include <utility>

#include "delivery/crypto.h"
#include "gateway/http/problem.h"

namespace limner::gateway::http {

namespace asio = boost::asio;
using beast_http::field;
using beast_http::status;
// GCC 12 wants coroutines as functions of their own, with all they keep as parameters: each
// middleware is one, and the function that the header names binds its settings.
using Answer = asio::awaitable<Response>;

namespace {

std::string_view view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string_view method_name(const Request& request) {
  return view(beast_http::to_string(request.method));
}

// --- client_address

bool is_trusted(const std::vector<platform::http::AddressRange>& ranges, std::string_view text) {
  const auto address = platform::http::parse_address(text);
  return address && std::any_of(ranges.begin(), ranges.end(),
                                [&](const auto& range) { return range.contains(*address); });
}

// All X-Forwarded-For fields are one list, its last address the one our own proxy saw.
std::string forwarded_for(const Request& request) {
  std::string list;
  const auto [first, last] = request.headers.equal_range("X-Forwarded-For");
  for (auto place = first; place != last; ++place) {
    if (!list.empty()) list += ',';
    list += view(place->value());
  }
  return list;
}

std::string first_untrusted(const std::vector<platform::http::AddressRange>& trusted,
                            std::string peer, std::string_view list) {
  while (is_trusted(trusted, peer) && !list.empty()) {
    const std::size_t comma = list.rfind(',');
    const std::size_t begin = comma == std::string_view::npos ? 0 : comma + 1;
    const std::string_view last = trim(list.substr(begin));
    // What is no address was not written by our proxy: its own peer is all that is known.
    if (!platform::http::parse_address(last)) break;
    peer = last;
    list = list.substr(0, comma == std::string_view::npos ? 0 : comma);
  }
  return peer;
}

// --- request_id

bool is_sane_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return is_alphanumeric(c) || std::string_view("-_.:/+=@").find(c) != std::string_view::npos;
  });
}

std::string new_id() {
  return "req_" + delivery::base64_url(delivery::random_bytes(15));
}

Answer with_request_id(Request& request, const Handler& next) {
  const std::string_view given = request.header("X-Request-ID");
  request.id = is_sane_id(given) ? std::string(given) : new_id();
  Response response = co_await next(request);
  response.set("X-Request-ID", request.id);
  for (const auto& extra : request.answer_fields)
    response.headers.set(extra.name_string(), extra.value());
  co_return response;
}

// --- observe

Answer observed(platform::Metrics& metrics, Log& log, Request& request, const Handler& next) {
  Response response = co_await next(request);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - request.arrived;
  const int code = static_cast<int>(response.status);
  metrics.request(request.route, code, taken.count());
  const std::string_view account = request.caller ? request.caller->account : std::string_view();
  log.info("request", {{"request_id", request.id},
                       {"method", method_name(request)},
                       {"route", request.route},
                       {"path", request.path},
                       {"status", std::int64_t{code}},
                       {"seconds", taken.count()},
                       {"peer", request.peer},
                       {"account", account}});
  co_return response;
}

// --- trace

Answer traced(platform::Tracer& tracer, Request& request, const Handler& next) {
  const std::string name = fmt::format("{} {}", method_name(request), request.route);
  const platform::SpanStart start{
      .name = name, .parent = request.header("traceparent"), .kind = platform::SpanKind::kServer};
  platform::Span span = tracer.start_span(
      start, {{"http.request.method", method_name(request)}, {"http.route", request.route}});
  request.traceparent = span.traceparent();
  Response response = co_await next(request);
  const auto code = static_cast<std::int64_t>(response.status);
  span.set({"http.response.status_code", code});
  if (code >= 500) span.fail("the request failed inside the service");
  co_return response;
}

// --- security_fields

Answer with_security_fields(bool tls, Request& request, const Handler& next) {
  Response response = co_await next(request);
  const auto usual = [&](boost::beast::string_view name, std::string_view value) {
    if (response.headers.count(name) == 0) response.headers.set(name, {value.data(), value.size()});
  };
  usual("X-Content-Type-Options", "nosniff");
  usual("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'");
  usual("Referrer-Policy", "no-referrer");
  usual("Cache-Control", "no-store");
  if (tls) usual("Strict-Transport-Security", "max-age=31536000");
  co_return response;
}

// --- cross_origin

// What a page may send and see beyond what the fetch standard always lets it.
constexpr std::string_view kPageSends =
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Prefer, Range, "
    "X-Request-ID, traceparent";
constexpr std::string_view kPageSees =
    "Content-Disposition, ETag, Location, Preference-Applied, RateLimit, RateLimit-Policy, "
    "Retry-After, X-Request-ID";

Response preflight_answer() {
  Response response;
  response.status = status::no_content;
  response.set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE");
  response.set("Access-Control-Allow-Headers", kPageSends);
  response.set("Access-Control-Max-Age", "600");
  return response;
}

Answer across_origins(const std::vector<std::string>& origins, Request& request,
                      const Handler& next) {
  const std::string_view origin = request.header("Origin");
  const bool any = std::find(origins.begin(), origins.end(), "*") != origins.end();
  const bool known = std::find(origins.begin(), origins.end(), origin) != origins.end();
  if (!origins.empty() && !any) request.answer_fields.set(field::vary, "Origin");
  if (origin.empty() || !(any || known)) co_return co_await next(request);
  const std::string_view allowed = any ? "*" : origin;
  request.answer_fields.set("Access-Control-Allow-Origin", {allowed.data(), allowed.size()});
  const bool preflight = request.method == beast_http::verb::options &&
                         request.headers.count("Access-Control-Request-Method") > 0;
  if (preflight) co_return preflight_answer();
  request.answer_fields.set("Access-Control-Expose-Headers", kPageSees);
  co_return co_await next(request);
}

// --- error_shape

void log_failure(Log& log, const Request& request, const std::exception_ptr& thrown) {
  std::string text = "something that is no exception";
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& failure) {
    text = failure.what();
  } catch (...) {
  }
  log.error("a request failed",
            {{"request_id", request.id}, {"route", request.route}, {"error", text}});
}

Answer shaped(Log& log, Request& request, const Handler& next) {
  std::exception_ptr thrown;
  try {
    co_return co_await next(request);
  } catch (...) {
    thrown = std::current_exception();
  }
  const Problem problem = problem_of(thrown);
  const bool ours =
      static_cast<int>(problem.status) >= 500 && problem.status != status::not_implemented;
  // A handler that the client left alone may end in any way.
  if (ours && !request.gone.stop_requested()) log_failure(log, request, thrown);
  co_return problem_response(problem, request.id);
}

// --- rate_limit

Answer limited(const std::string& policy, const Limit& limit, Request& request,
               const Handler& next) {
  if (!limit) co_return co_await next(request);
  const platform::RateAnswer answer = limit(request);
  if (answer.limit > 0) {
    request.answer_fields.set("RateLimit-Policy", fmt::format("\"{}\";q={};w={}", policy,
                                                              answer.limit, answer.window.count()));
    request.answer_fields.set("RateLimit", fmt::format("\"{}\";r={};t={}", policy, answer.remaining,
                                                       answer.reset.count()));
  }
  if (!answer.allowed) {
    throw ProblemFailure({.status = status::too_many_requests,
                          .code = "rate_limited",
                          .detail = "There were too many requests; Retry-After says when to go on.",
                          .retry_after = answer.retry_after});
  }
  co_return co_await next(request);
}

// --- concurrency

Answer inside(const Enter& enter, Request& request, const Handler& next) {
  std::shared_ptr<void> place;
  if (enter && request.caller) {
    place = enter(request);
    if (!place) {
      throw ProblemFailure({.status = status::too_many_requests,
                            .code = "too_many_at_once",
                            .detail = "The account has as many requests under way as it may.",
                            .retry_after = std::chrono::seconds(1)});
    }
  }
  co_return co_await next(request);
}

// --- authenticate

// The key in "Bearer KEY"; "" for anything else.
std::string_view bearer(std::string_view authorization) {
  const std::size_t space = authorization.find(' ');
  if (space == std::string_view::npos) return {};
  const std::string_view scheme = authorization.substr(0, space);
  if (!boost::beast::iequals({scheme.data(), scheme.size()}, "bearer")) return {};
  return trim(authorization.substr(space));
}

Answer authenticated(const Authenticate& look_up, Request& request, const Handler& next) {
  const std::string_view authorization = request.header("Authorization");
  if (authorization.empty() && request.open) co_return co_await next(request);
  const std::string_view key = bearer(authorization);
  if (key.empty()) {
    request.answer_fields.set(field::www_authenticate, "Bearer");
    throw Failure(ErrorCode::kUnauthenticated,
                  "This wants an API key: 'Authorization: Bearer KEY'.");
  }
  auto caller = look_up(key, request.peer);
  if (!caller.ok()) {
    if (caller.error().code == ErrorCode::kUnauthenticated)
      request.answer_fields.set(field::www_authenticate, "Bearer error=\"invalid_token\"");
    throw Failure(caller.error());
  }
  request.caller = std::move(*caller);
  co_return co_await next(request);
}

// --- refusals, body

Answer unless_refused(Request& request, const Handler& next) {
  if (request.refusal) throw ProblemFailure(*request.refusal);
  co_return co_await next(request);
}

Answer with_body(std::size_t usual, Request& request, const Handler& next) {
  if (request.read_body) {
    const std::size_t limit = request.body_limit != 0 ? request.body_limit : usual;
    request.body = co_await request.read_body(limit);
  }
  co_return co_await next(request);
}

// --- deadline

Answer within(std::chrono::milliseconds limit, Request& request, const Handler& next) {
  // The timer's end may already be queued when the handler returns.
  struct State {
    bool running = true, late = false;
  };
  const auto state = std::make_shared<State>();
  asio::steady_timer timer(co_await asio::this_coro::executor, limit);
  timer.async_wait([state, &request](const boost::system::error_code& stopped) {
    if (stopped || !state->running) return;
    state->late = true;
    if (request.cancel) request.cancel();
  });
  try {
    Response response = co_await next(request);
    state->running = false;
    co_return response;
  } catch (...) {
    state->running = false;
    if (!state->late) throw;
  }
  throw Failure(ErrorCode::kDeadlineExceeded, "The answer was not ready in the time it may take.");
}

}  // namespace

Middleware client_address(std::vector<platform::http::AddressRange> trusted_proxies) {
  return [trusted = std::move(trusted_proxies)](Request& request, const Handler& next) {
    if (!trusted.empty())
      request.peer = first_untrusted(trusted, request.peer, forwarded_for(request));
    return next(request);
  };
}

Middleware request_id() {
  return with_request_id;
}

Middleware observe(platform::Metrics& metrics, Log& log) {
  return [&metrics, &log](Request& request, const Handler& next) {
    return observed(metrics, log, request, next);
  };
}

Middleware trace(platform::Tracer& tracer) {
  return [&tracer](Request& request, const Handler& next) { return traced(tracer, request, next); };
}

Middleware security_fields(bool tls) {
  return [tls](Request& request, const Handler& next) {
    return with_security_fields(tls, request, next);
  };
}

Middleware cross_origin(std::vector<std::string> origins) {
  return [origins = std::move(origins)](Request& request, const Handler& next) {
    return across_origins(origins, request, next);
  };
}

Middleware error_shape(Log& log) {
  return [&log](Request& request, const Handler& next) { return shaped(log, request, next); };
}

Middleware rate_limit(std::string policy, Limit limit) {
  return
      [policy = std::move(policy), limit = std::move(limit)](
          Request& request, const Handler& next) { return limited(policy, limit, request, next); };
}

Middleware authenticate(Authenticate look_up) {
  return [look_up = std::move(look_up)](Request& request, const Handler& next) {
    return authenticated(look_up, request, next);
  };
}

Middleware concurrency(Enter enter) {
  return [enter = std::move(enter)](Request& request, const Handler& next) {
    return inside(enter, request, next);
  };
}

Middleware refusals() {
  return unless_refused;
}

Middleware body(std::size_t usual) {
  return [usual](Request& request, const Handler& next) { return with_body(usual, request, next); };
}

Middleware deadline(std::chrono::milliseconds limit) {
  return [limit](Request& request, const Handler& next) { return within(limit, request, next); };
}

}  // namespace limner::gateway::http
