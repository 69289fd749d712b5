// GET /v1/usage: what was drawn, added up by day, account, key and model.
#pragma once

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

boost::asio::awaitable<http::Response> show_usage(Api& api, http::Request& request);

}  // namespace limner::gateway::api_v1
