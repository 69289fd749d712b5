// For load balancers, scrapers and readers of the description: /livez, /readyz, /ping, /metrics,
// /openapi.json. None needs a key.
#pragma once

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

boost::asio::awaitable<http::Response> livez(Api& api, http::Request& request);
// 200, or 503 with the reasons.
boost::asio::awaitable<http::Response> readyz(Api& api, http::Request& request);
// As RunPod's load balancer asks: 200 ready, 204 starting.
boost::asio::awaitable<http::Response> ping(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> metrics(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> openapi(Api& api, http::Request& request);

}  // namespace limner::gateway::api_v1
