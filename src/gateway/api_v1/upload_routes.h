// POST /v1/uploads: a picture that later requests start from.
#pragma once

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

inline constexpr std::size_t kMostUploadBytes = 25'000'000;

// The body is the file itself; its bytes say what it is, the Content-Type is not believed. It lies
// in the account's own part of the store under a name made of its content: uploading it again gives
// the same id.
boost::asio::awaitable<http::Response> upload(Api& api, http::Request& request);

}  // namespace limner::gateway::api_v1
