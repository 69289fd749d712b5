// docs/openapi.json as it was when this program was built.
#pragma once

#include <string_view>

namespace limner::gateway::api_v1 {

std::string_view openapi_text();

}  // namespace limner::gateway::api_v1
