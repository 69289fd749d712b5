// What this installation can draw with, and how busy it is: models, samplers, loras, templates,
// queue.
#pragma once

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

boost::asio::awaitable<http::Response> list_models(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> list_samplers(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> list_loras(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> list_templates(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> reload_templates(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> show_queue(Api& api, http::Request& request);

}  // namespace limner::gateway::api_v1
