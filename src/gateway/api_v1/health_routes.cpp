#include "gateway/api_v1/health_routes.h"

#include <fmt/format.h>

#include "gateway/api_v1/answers.h"
#include "gateway/api_v1/openapi_text.h"
#include "gateway/http/problem.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using http::Response;
using http::beast_http::status;
using nlohmann::json;

asio::awaitable<std::vector<std::string>> reasons(const ApiV1Services& services) {
  if (!services.not_ready) co_return std::vector<std::string>{};
  const auto ask = [&services] { return services.not_ready(); };
  co_return co_await http::blocking(services.blocking, ask);
}

}  // namespace

asio::awaitable<Response> livez(Api&, http::Request&) {
  co_return json_answer({{"status", "alive"}});
}

asio::awaitable<Response> readyz(Api& api, http::Request& request) {
  const std::vector<std::string> why = co_await reasons(api.services);
  if (why.empty()) co_return json_answer({{"status", "ready"}, {"reasons", json::array()}});
  Response response = http::problem_response({.status = status::service_unavailable,
                                              .code = "not_ready",
                                              .detail = fmt::format("{}", fmt::join(why, " "))},
                                             request.id);
  json body = json::parse(response.body);
  body["reasons"] = why;
  response.body = body.dump();
  co_return response;
}

asio::awaitable<Response> ping(Api& api, http::Request&) {
  const std::vector<std::string> why = co_await reasons(api.services);
  if (why.empty()) co_return json_answer({{"status", "ready"}});
  Response response;
  response.status = status::no_content;
  co_return response;
}

asio::awaitable<Response> metrics(Api& api, http::Request&) {
  Response response;
  response.set("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
  response.set("Cache-Control", "no-store");
  response.body = api.services.metrics.text();
  co_return response;
}

asio::awaitable<Response> openapi(Api&, http::Request&) {
  Response response;
  response.set("Content-Type", "application/json");
  response.set("Cache-Control", "no-cache");
  response.body = openapi_text();
  co_return response;
}

}  // namespace limner::gateway::api_v1
