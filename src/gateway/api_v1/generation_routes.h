// /v1/generations/{id} and the list: get, cancel, retry, delete.
#pragma once

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

boost::asio::awaitable<http::Response> get_generation(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> list_generations(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> cancel_generation(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> retry_generation(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> delete_generation(Api& api, http::Request& request);

}  // namespace limner::gateway::api_v1
