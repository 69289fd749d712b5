// GET /v1/generations/{id}/events: what happens to a job, as server-sent events (WHATWG HTML,
// section 9.2), until it has ended.
#pragma once

#include "gateway/api_v1/api.h"

namespace limner::gateway::api_v1 {

// Without Last-Event-ID (or ?after=, for clients that cannot send it) the first event tells the
// present state with the whole object; with it, come the events after that id: those on the disk,
// those of the running attempt that are in memory, then live ones. A job that has ended, to a
// reader who has seen the end, is 204: a browser does not ask again.
boost::asio::awaitable<http::Response> stream_events(Api& api, http::Request& request);

}  // namespace limner::gateway::api_v1
