#include "cli/engine_module/json_service.h"

#include <exception>
#include <string>

#include "base/json.h"
#include "gateway/http/problem.h"

namespace limner::cli {

namespace http = gateway::http;
using http::beast_http::status;
using nlohmann::json;

namespace {

// What went wrong inside is for the log; its client learns no more than that.
void log_failure(Log& log, const http::Request& request, const std::exception_ptr& thrown) {
  std::string text = "something that is no exception";
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& failure) {
    text = failure.what();
  } catch (...) {
  }
  log.error("a request failed", {{"route", request.route}, {"error", text}});
}

http::Response error_answer(const http::Request& request, const std::exception_ptr& thrown,
                            Log& log) {
  const http::Problem problem = http::problem_of(thrown);
  if (problem.status == status::internal_server_error && !request.gone.stop_requested()) {
    log_failure(log, request, thrown);
  }
  // For the status, the code and Retry-After; the body gets the platform's shape.
  http::Response response = http::problem_response(problem, {});
  const json body = json::parse(response.body);
  http::Response answer = json_answer({{"error", problem.detail}, {"code", body.at("code")}});
  answer.status = response.status;
  const auto wait = response.headers.find("Retry-After");
  if (wait != response.headers.end()) answer.headers.set("Retry-After", wait->value());
  for (const auto& field : request.answer_fields) {
    answer.headers.set(field.name_string(), field.value());
  }
  return answer;
}

boost::asio::awaitable<http::Response> answer(const http::Router& router, std::size_t body_limit,
                                              Log& log, http::Request& request) {
  std::exception_ptr thrown;
  try {
    if (request.refusal) throw http::ProblemFailure(*request.refusal);
    const http::Router::Found found = router.find(request);
    const std::size_t limit = found.options.body_limit == 0 ? body_limit : found.options.body_limit;
    if (request.read_body) request.body = co_await request.read_body(limit);
    co_return co_await found.handler(request);
  } catch (...) {
    thrown = std::current_exception();
  }
  co_return error_answer(request, thrown, log);
}

}  // namespace

http::Handler json_service(const http::Router& router, std::size_t body_limit, Log& log) {
  return [&router, body_limit, &log](http::Request& request) {
    return answer(router, body_limit, log, request);
  };
}

http::Response json_answer(const json& body) {
  http::Response response;
  response.set("Content-Type", "application/json");
  response.set("Cache-Control", "no-store");
  // A message may repeat bytes that are no UTF-8.
  response.body = body.dump(-1, ' ', false, json::error_handler_t::replace);
  return response;
}

http::Response empty_answer(status status) {
  http::Response response;
  response.status = status;
  response.set("Cache-Control", "no-store");
  return response;
}

json json_body(const http::Request& request) {
  return parse_json(request.body, {.bytes = request.body.size()}).value_or_throw();
}

}  // namespace limner::cli
