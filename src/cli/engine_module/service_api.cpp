// What the gateway asks of a service: who may ask what, what is refused, what is noted.
#include <fmt/format.h>

#include <algorithm>

#include "cli/engine_module/service_state.h"
#include "gateway/webhooks/routes.h"

namespace limner::cli {
namespace {

namespace http = gateway::http;

http::Problem refused(http::beast_http::status status, std::string code, std::string detail,
                      std::int64_t retry_after) {
  return {.status = status,
          .code = std::move(code),
          .detail = std::move(detail),
          .fields = {},
          .retry_after = std::chrono::seconds(std::clamp<std::int64_t>(retry_after, 1, 120))};
}

boost::asio::awaitable<http::Response> count_refusals(const http::Handler& service,
                                                      platform::Refusals& refusals,
                                                      http::Request& request) {
  http::Response response = co_await service(request);
  const int status = static_cast<int>(response.status);
  if (status == 401 || status == 403 || status == 429) {
    refusals.count(
        {.status = status,
         .code = std::string(http::beast_http::obsolete_reason(response.status)),
         .account = request.caller ? request.caller->account : "",
         .key_id = request.caller ? request.caller->key_id : "",
         .peer = request.peer,
         .route = std::string(http::beast_http::to_string(request.method)) + " " + request.route});
  }
  co_return response;
}

}  // namespace

gateway::api_v1::ApiV1Services Service::Parts::api_services() {
  gateway::api_v1::ApiV1Services services{*queue,          *store,           hub,    catalog,
                                          templates.get(), *artifacts.store, signer, blocking,
                                          clock,           metrics,          log};
  services.network = network;
  services.body.most_pixels = config.limits.most_pixels;
  services.public_url = public_url;
  services.url_lifetime = config.delivery.url_lifetime;
  services.not_ready = [this] { return not_ready(); };
  services.refuse = [this](const http::Caller& who, std::int64_t images) {
    return refuse(who, images);
  };
  services.not_queued = [this](const http::Caller& who, std::int64_t images) {
    daily.give_back(who.account, images, clock.wall().count());
  };
  services.workers = [this] { return worker_views(); };
  services.reinitialize = [this] { return workers.reinitialize(); };
  services.audit = [this](const platform::AuditAct& act) {
    audit->append({&act, 1}).value_or_throw();
  };
  return services;
}

http::ServiceOptions Service::Parts::service_options() {
  http::ServiceOptions options;
  options.authenticate = [this](std::string_view bearer, std::string_view) {
    return caller(bearer);
  };
  if (config.rate_limit) {
    const platform::Rate address{config.server.address_requests_per_minute,
                                 config.server.address_burst};
    options.address_limit = [this, address](const http::Request& request) {
      return of_addresses.take(platform::rate_limit_name(request.peer), address);
    };
    options.key_limit = [this](const http::Request& request) {
      const platform::AccountLimits& limits = request.caller->limits;
      return of_keys.take(request.caller->key_id, {limits.requests_per_minute, limits.burst});
    };
    options.enter = [this](const http::Request& request) -> std::shared_ptr<void> {
      auto place =
          under_way.enter(request.caller->account, request.caller->limits.concurrent_requests);
      if (!place) return nullptr;
      return std::make_shared<platform::ConcurrentRequests::Place>(std::move(*place));
    };
  }
  options.trusted_proxies = config.server.trusted_proxies;
  options.cors_origins = config.server.cors_origins;
  options.tls = !config.server.tls_certificate.empty();
  options.body_limit = config.server.body_limit.count;
  return options;
}

http::Handler Service::Parts::handler() {
  gateway::api_v1::add_routes(router, api_services());
  gateway::webhooks::add_routes(router, {*messages, notifier, blocking, network});
  http::Handler service = http::make_service(router, service_options(), {metrics, *tracer, log});
  return [this, service = std::move(service)](http::Request& request) {
    return count_refusals(service, refusals, request);
  };
}

std::vector<gateway::api_v1::WorkerView> Service::Parts::worker_views() const {
  std::vector<gateway::api_v1::WorkerView> views;
  for (const worker::WorkerReport& report : workers.report()) {
    views.push_back({.name = report.name,
                     .state = std::string(worker::name(report.state.state)),
                     .meaning = std::string(worker::sentence(report.state.state)),
                     .reason = report.state.reason,
                     .since = report.state.entered_at,
                     .job = report.job,
                     .model = report.model,
                     .step = report.step,
                     .steps = report.steps,
                     .completed = report.jobs,
                     .replaced_threads = report.hangs});
  }
  return views;
}

std::vector<std::string> Service::Parts::not_ready() const {
  std::vector<std::string> reasons;
  if (draining) reasons.emplace_back("The service is about to stop.");
  if (!workers.ready()) reasons.emplace_back("No worker can take a job.");
  if (std::string problem = disk.problem(); !problem.empty()) reasons.push_back(std::move(problem));
  return reasons;
}

std::optional<http::Problem> Service::Parts::refuse(const http::Caller& who, std::int64_t images) {
  using status = http::beast_http::status;
  if (draining) {
    return refused(status::service_unavailable, "draining", "The service is about to stop.", 10);
  }
  if (const std::string problem = disk.problem(); !problem.empty()) {
    return refused(status::insufficient_storage, "disk_full", problem, 60);
  }
  if (!config.rate_limit) return std::nullopt;
  const auto accepted = daily.accept(who.account, images, who.limits.images_per_day);
  if (accepted.ok()) return std::nullopt;
  if (accepted.error().code != ErrorCode::kUnavailable) throw Failure(accepted.error());
  return refused(status::too_many_requests, "daily_limit", accepted.error().message,
                 daily.seconds_left());
}

// What was not drawn after all does not count for the day.
void Service::Parts::give_back(const std::string& job_id) {
  const auto job = store->find(job_id);
  if (!job.ok() || !*job) return;
  const auto request = contract::job_request_from_text((*job)->request);
  if (request.ok()) {
    daily.give_back((*job)->account, request->picture.num_images, (*job)->created_at);
  }
}

Result<http::Caller> Service::Parts::caller(std::string_view bearer) {
  const auto identity = keys->authenticate(bearer);
  if (!identity.ok()) return identity.error();
  return http::Caller{.account = identity->account,
                      .key_id = identity->key_id,
                      .tier = contract::tier_named(identity->tier).value_or(contract::Tier::kRelax),
                      .may_generate = identity->scopes.generate,
                      .may_read = identity->scopes.read,
                      .may_administer = identity->scopes.admin,
                      .limits = identity->limits};
}

}  // namespace limner::cli
