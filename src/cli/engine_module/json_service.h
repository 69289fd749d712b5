// JSON over HTTP for callers without accounts: a RunPod endpoint at home, and a load-balanced one.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "gateway/http/message.h"
#include "gateway/http/router.h"

namespace limner::cli {

// The handler to give to a Server, which all of this outlives. Reads bodies of up to `body_limit`
// bytes where the route has no limit of its own. Errors are {"error": one sentence, "code"}, with
// the status of the gateway's table.
gateway::http::Handler json_service(const gateway::http::Router& router, std::size_t body_limit,
                                    Log& log);

gateway::http::Response json_answer(const nlohmann::json& body);
gateway::http::Response empty_answer(gateway::http::beast_http::status status);

// The request's body. Throws Failure: it is no JSON.
nlohmann::json json_body(const gateway::http::Request& request);

}  // namespace limner::cli
