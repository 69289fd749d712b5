// DELETE /v1/accounts/{account}/data: an account that leaves.
#pragma once

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

// Removes the account's generations, its pictures and its uploads; scope admin. 409 while it has
// generations that wait or run; what it stores from now on stays, and so do its usage and the audit
// log.
boost::asio::awaitable<http::Response> delete_account_data(Api& api, http::Request& request);

}  // namespace limner::gateway::api_v1
