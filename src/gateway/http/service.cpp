#include "gateway/http/service.h"

#include <memory>
#include <utility>

namespace limner::gateway::http {

namespace {

struct Service {
  const Router& router;
  std::vector<Middleware> list;
};

// What has no caller takes nothing from a key's rate.
Limit of_callers(Limit limit) {
  if (!limit) return limit;
  return [limit = std::move(limit)](const Request& request) {
    return request.caller ? limit(request) : platform::RateAnswer{};
  };
}

std::vector<Middleware> make_list(ServiceOptions options, Observers observers) {
  std::vector<Middleware> list;
  // Everything below names the client by it.
  list.push_back(client_address(std::move(options.trusted_proxies)));
  // Every log line and every answer carries it.
  list.push_back(request_id());
  // Sees the final status of whatever happens below.
  list.push_back(observe(observers.metrics, observers.log));
  // Errors are part of a trace.
  list.push_back(trace(observers.tracer));
  // Error answers want them too.
  list.push_back(security_fields(options.tls));
  // A page must be able to read errors; preflights have no key and cost nobody's rate.
  list.push_back(cross_origin(std::move(options.cors_origins)));
  // All that is below may throw.
  list.push_back(error_shape(observers.log));
  // Before a key is looked at, so that guessing keys is limited.
  list.push_back(rate_limit("address", std::move(options.address_limit)));
  list.push_back(authenticate(std::move(options.authenticate)));
  // Per key, so it wants the caller.
  list.push_back(rate_limit("default", of_callers(std::move(options.key_limit))));
  // Held until the answer is there; what the rate refuses takes no place.
  list.push_back(concurrency(std::move(options.enter)));
  // Limited like any other request, but not worth a body.
  list.push_back(refusals());
  // Memory is given only to who may ask.
  list.push_back(body(options.body_limit));
  // Of the handler alone: a slow upload has limits of its own.
  list.push_back(deadline(options.deadline));
  return list;
}

boost::asio::awaitable<Response> run(const Service& service, std::size_t place, Request& request,
                                     const Handler& handler) {
  if (place == service.list.size()) co_return co_await handler(request);
  const Handler next = [&service, place, &handler](Request& passed) {
    return run(service, place + 1, passed, handler);
  };
  co_return co_await service.list[place](request, next);
}

// A request without a handler goes the same way, up to refusals().
boost::asio::awaitable<Response> answer(std::shared_ptr<const Service> service, Request& request) {
  Handler handler;
  if (request.refusal) {
    request.route = "malformed";
    request.open = true;
  } else {
    try {
      Router::Found found = service->router.find(request);
      handler = std::move(found.handler);
      request.open = found.options.open;
      request.body_limit = found.options.body_limit;
    } catch (const ProblemFailure& failure) {
      request.refusal = failure.problem();
      request.open = true;
    }
    if (request.route.empty()) request.route = "unmatched";
  }
  co_return co_await run(*service, 0, request, handler);
}

}  // namespace

Handler make_service(const Router& router, ServiceOptions options, Observers observers) {
  auto service =
      std::make_shared<const Service>(Service{router, make_list(std::move(options), observers)});
  return [service](Request& request) { return answer(service, request); };
}

}  // namespace limner::gateway::http
