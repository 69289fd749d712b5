// POST /v1/generations: accept, and, for a client that wants to wait, answer with the result.
#pragma once

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

boost::asio::awaitable<http::Response> create_generation(Api& api, http::Request& request);

}  // namespace limner::gateway::api_v1
