// What an operator does to a running service: stop and start handing out jobs, look at the workers,
// give one that hangs a fresh start. Scope admin.
#pragma once

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

boost::asio::awaitable<http::Response> pause_queue(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> resume_queue(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> list_workers(Api& api, http::Request& request);
boost::asio::awaitable<http::Response> reinitialize_workers(Api& api, http::Request& request);

}  // namespace limner::gateway::api_v1
