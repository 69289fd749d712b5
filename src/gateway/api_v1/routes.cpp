#include "gateway/api_v1/routes.h"

#include "gateway/api_v1/account_routes.h"
#include "gateway/api_v1/artifact_routes.h"
#include "gateway/api_v1/catalog_routes.h"
#include "gateway/api_v1/create_generation.h"
#include "gateway/api_v1/event_stream.h"
#include "gateway/api_v1/generation_routes.h"
#include "gateway/api_v1/health_routes.h"
#include "gateway/api_v1/operator_routes.h"
#include "gateway/api_v1/upload_routes.h"
#include "gateway/api_v1/usage_routes.h"

namespace limner::gateway::api_v1 {

void add_routes(http::Router& router, ApiV1Services services) {
  using http::beast_http::verb;
  const auto api = std::make_shared<Api>(std::move(services));
  const auto add = [&](verb method, const char* pattern, auto handler,
                       http::RouteOptions options = {}) {
    router.add(
        method, pattern, [api, handler](http::Request& request) { return handler(*api, request); },
        options);
  };
  const http::RouteOptions open{.open = true};
  const http::RouteOptions body{.body_limit = api->services.body.most_bytes};
  add(verb::post, "/v1/generations", create_generation, body);
  add(verb::get, "/v1/generations", list_generations);
  add(verb::get, "/v1/generations/{id}", get_generation);
  add(verb::delete_, "/v1/generations/{id}", delete_generation);
  add(verb::get, "/v1/generations/{id}/events", stream_events);
  add(verb::post, "/v1/generations/{id}/cancel", cancel_generation);
  add(verb::post, "/v1/generations/{id}/retry", retry_generation);
  add(verb::get, "/v1/models", list_models);
  add(verb::get, "/v1/samplers", list_samplers);
  add(verb::get, "/v1/loras", list_loras);
  add(verb::get, "/v1/templates", list_templates);
  add(verb::post, "/v1/templates/reload", reload_templates);
  add(verb::get, "/v1/queue", show_queue);
  add(verb::post, "/v1/queue/pause", pause_queue);
  add(verb::post, "/v1/queue/resume", resume_queue);
  add(verb::get, "/v1/workers", list_workers);
  add(verb::post, "/v1/workers/reinitialize", reinitialize_workers);
  add(verb::get, "/v1/usage", show_usage);
  add(verb::delete_, "/v1/accounts/{account}/data", delete_account_data);
  add(verb::post, "/v1/uploads", upload, {.body_limit = kMostUploadBody});
  add(verb::get, "/v1/artifacts/{key...}", get_artifact, open);
  add(verb::get, "/livez", livez, open);
  add(verb::get, "/readyz", readyz, open);
  add(verb::get, "/ping", ping, open);
  add(verb::get, "/metrics", metrics, open);
  add(verb::get, "/openapi.json", openapi, open);
}

}  // namespace limner::gateway::api_v1
