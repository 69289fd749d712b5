// The routes of the native API (docs/openapi.json).
#pragma once

#include "gateway/api_v1/services.h"
#include "gateway/http/router.h"

namespace limner::gateway::api_v1 {

// What `services` refers to outlives the router.
void add_routes(http::Router& router, ApiV1Services services);

}  // namespace limner::gateway::api_v1
