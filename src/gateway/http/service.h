// Service: what a request meets between the server and its route's handler. One list, in one
// function (service.cpp), with a reason per line.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "gateway/http/message.h"
#include "gateway/http/middleware.h"
#include "gateway/http/router.h"
#include "platform/http/address.h"
#include "platform/metrics/metrics.h"
#include "platform/trace/tracer.h"

namespace limner::gateway::http {

struct ServiceOptions {
  Authenticate authenticate{};  // must be given
  Limit address_limit{};        // absent: addresses are not limited
  Limit key_limit{};            // of requests with a caller; absent: keys are not limited
  Enter enter{};                // absent: so many requests at once as there are connections

  // Proxies whose X-Forwarded-For is believed.
  std::vector<platform::http::AddressRange> trusted_proxies{};
  // "https://studio.example", or "*" alone: pages of which origin may read answers.
  std::vector<std::string> cors_origins{};
  bool tls = false;  // adds Strict-Transport-Security

  std::size_t body_limit = std::size_t{32} << 20;  // of routes without one of their own
  // Of one handler, a stream's production not counted; 504 after it. Longer than any wait that a
  // client may ask for.
  std::chrono::milliseconds deadline = std::chrono::minutes(6);
};

// Who watches; all outlive the service.
struct Observers {
  platform::Metrics& metrics;
  platform::Tracer& tracer;
  Log& log;
};

// The handler to give to a Server, which it outlives, as the router does.
Handler make_service(const Router& router, ServiceOptions options, Observers observers);

}  // namespace limner::gateway::http
