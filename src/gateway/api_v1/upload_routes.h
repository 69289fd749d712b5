// POST /v1/uploads: a picture that later requests start from.
#pragma once

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

inline constexpr std::size_t kMostUploadBytes = 25'000'000;
// Of the body: a form has lines of its own around the file.
inline constexpr std::size_t kMostUploadBody = kMostUploadBytes + (16 << 10);

// The body is the file itself, or a form (multipart/form-data) with the file as its only part,
// whatever the part's name. The file's bytes say what it is; a Content-Type is not believed. It
// lies in the account's own part of the store under a name made of its content: uploading it again
// gives the same id.
boost::asio::awaitable<http::Response> upload(Api& api, http::Request& request);

}  // namespace limner::gateway::api_v1
