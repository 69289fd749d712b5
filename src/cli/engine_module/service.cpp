#include "cli/engine_module/service.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>

#include "cli/engine_module/service_parts.h"
#include "cli/lora_paths.h"
#include "cli/model_paths.h"
#include "delivery/webhook_store.h"
#include "gateway/api_v1/routes.h"
#include "gateway/http/service.h"
#include "gateway/maintenance.h"
#include "gateway/webhooks/routes.h"
#include "platform/accounts/quotas.h"
#include "platform/audit/refusals.h"
#include "platform/file_lock.h"
#include "platform/trace/otlp_headers.h"
#include "queue/sql_store.h"
#include "worker/worker_pool.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
namespace http = gateway::http;
using platform::ServiceConfig;

// Below so much free disk no new requests are taken: what is accepted must also fit.
constexpr std::uint64_t kLeastDisk = std::uint64_t{64} << 20;
constexpr std::size_t kBlockingThreads = 16;

// A new data folder is its owner's alone: it holds prompts and pictures.
void make_folders(const fs::path& data) {
  if (fs::create_directories(data)) fs::permissions(data, fs::perms::owner_all);
  for (const char* name : {"artifacts", "models", "loras", "embeddings"}) {
    fs::create_directories(data / name);
  }
}

platform::FileLock lock_data(const fs::path& data) {
  auto lock = platform::FileLock::try_lock(data / "lock");
  if (!lock) {
    throw Failure(ErrorCode::kUnavailable,
                  fmt::format("another limner serves the data folder {}", data.string()));
  }
  return std::move(*lock);
}

// In order: the drop-in folder, those of the configuration, those of the command line.
std::vector<fs::path> folders(fs::path drop_in, const std::vector<fs::path>& configured,
                              const std::vector<fs::path>& usual) {
  std::vector<fs::path> all = {std::move(drop_in)};
  all.insert(all.end(), configured.begin(), configured.end());
  all.insert(all.end(), usual.begin(), usual.end());
  return all;
}

// templates.json of the data folder need not be there; one that was named must.
std::unique_ptr<platform::TemplateStore> open_templates(const ServiceConfig& config) {
  const bool named = !config.models.templates.empty();
  const fs::path file = named ? config.models.templates : config.data_dir / "templates.json";
  if (!named && !fs::exists(file)) return nullptr;
  return platform::TemplateStore::open(file).value_or_throw();
}

std::unique_ptr<platform::Tracer> make_tracer(const ServiceConfig& config,
                                              platform::http::Exchange& exchange,
                                              const platform::Clock& clock, Log& log) {
  platform::TracerOptions options;
  options.endpoint = config.telemetry.otlp_endpoint;
  options.headers =
      platform::parse_otlp_headers(config.telemetry.otlp_headers.value).value_or_throw();
  options.service_name = config.telemetry.service_name;
  options.sample_ratio = config.telemetry.sample_ratio;
  return platform::Tracer::make(std::move(options), exchange, clock, log).value_or_throw();
}

std::string scheme_and_place(const platform::ServerConfig& server, std::uint16_t port) {
  const bool v6 = server.host.find(':') != std::string::npos;
  return fmt::format("{}://{}{}{}:{}", server.tls_certificate.empty() ? "http" : "https",
                     v6 ? "[" : "", server.host, v6 ? "]" : "", port);
}

// Known before the server listens, since stored pictures are told of by the whole URL.
std::uint16_t port_of(platform::ServerConfig& server) {
  if (server.port == 0) server.port = free_port(server.host).value_or_throw();
  return static_cast<std::uint16_t>(server.port);
}

http::Problem refused(http::beast_http::status status, std::string code, std::string detail,
                      std::int64_t retry_after) {
  return {.status = status,
          .code = std::move(code),
          .detail = std::move(detail),
          .fields = {},
          .retry_after = std::chrono::seconds(std::clamp<std::int64_t>(retry_after, 1, 120))};
}

}  // namespace

// In the order in which they are made; each may use those above it.
struct Service::Parts {
  Parts(ServiceConfig given, platform::LogSink& its_log);

  ServiceConfig config;
  platform::LogSink& log;
  platform::SystemClock clock;
  platform::FileLock lock;
  const fs::path database;
  platform::Metrics metrics;
  const platform::http::NetworkRules network;  // what users may make the service reach
  platform::http::WebExchange to_users, to_operators;
  std::unique_ptr<platform::Tracer> tracer;

  std::unique_ptr<platform::KeyStore> keys;
  std::unique_ptr<platform::AuditLog> audit;
  platform::Refusals refusals;
  std::optional<platform::NewKey> first_key;

  std::unique_ptr<queue::Store> store;
  std::unique_ptr<queue::Queue> queue;
  const delivery::UrlSigner signer;
  const std::string public_url;
  ArtifactStores artifacts;
  std::unique_ptr<platform::TemplateStore> templates;

  const std::vector<fs::path> adapter_folders;
  worker::ModelCache models;
  worker::CatalogBuilder catalog;
  worker::WorkerPool workers;

  std::unique_ptr<delivery::WebhookStore> messages;
  gateway::webhooks::Notifier notifier;
  gateway::DiskWatch disk;
  gateway::Maintenance maintenance;

  platform::RateLimiter of_addresses, of_keys;
  platform::ConcurrentRequests under_way;
  platform::DailyImages daily;
  std::atomic<bool> draining{false};
  gateway::api_v1::EventHub hub;
  http::Blocking blocking;
  http::Router router;
  http::Server server;

  engine::EngineOptions engine_options() const;
  worker::ModelCacheOptions cache_options() const;
  worker::CatalogOptions catalog_options() const;
  worker::WorkerPoolOptions pool_options() const;
  std::vector<gateway::Chore> chores();
  gateway::api_v1::ApiV1Services api_services();
  http::ServiceOptions service_options();
  http::Handler handler();

  void note(const http::Caller& who, std::string_view act);
  double workers_needed() const;
  void give_back(const std::string& job_id);
  std::vector<gateway::api_v1::WorkerView> worker_views() const;
  std::vector<std::string> not_ready() const;
  std::optional<http::Problem> refuse(const http::Caller& who, std::int64_t images);
  Result<http::Caller> caller(std::string_view bearer);
};

namespace {

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

Service::Parts::Parts(ServiceConfig given, platform::LogSink& its_log)
    : config(std::move(given)),
      log(its_log),
      lock((make_folders(config.data_dir), lock_data(config.data_dir))),
      database(config.data_dir / "limner.db"),
      network(delivery::webhook_network(config.egress_allow)),
      to_users(network),
      to_operators(platform::http::trusted_network()),
      tracer(make_tracer(config, to_operators, clock, log)),
      keys(platform::KeyStore::open(database, clock).value_or_throw()),
      audit(platform::AuditLog::open(database, clock).value_or_throw()),
      refusals(*audit),
      first_key(keys->ensure_first_key().value_or_throw()),
      store(queue::open_sqlite_store(database).value_or_throw()),
      queue(queue::Queue::open(*store, make_policy(config.queue).value_or_throw(), clock,
                               queue_options(config.queue))
                .value_or_throw()),
      signer(open_signer(config.data_dir / "signing-key").value_or_throw()),
      public_url(config.server.public_url.empty()
                     ? scheme_and_place(config.server, port_of(config.server))
                     : config.server.public_url),
      artifacts(open_artifacts(config.delivery, {.folder = config.data_dir / "artifacts",
                                                 .public_url = public_url,
                                                 .signer = signer,
                                                 .exchange = to_operators,
                                                 .clock = clock})
                    .value_or_throw()),
      templates(open_templates(config)),
      adapter_folders(
          folders(config.data_dir / "loras", config.adapters.folders, lora_folders({}).folders())),
      models(worker::ModelCache::open(cache_options(), config.engine.device).value_or_throw()),
      catalog(
          catalog_options(), [this] { return models.loaded(); }, log),
      workers(pool_options(),
              {*queue, *artifacts.store, catalog, models, metrics, log, clock, tracer.get()}),
      messages(delivery::WebhookStore::open(database, clock).value_or_throw()),
      notifier({*store, *messages, to_users, clock, metrics, log, tracer.get()},
               [this](const contract::Job& job, const std::optional<contract::JobEvent>& progress) {
                 return gateway::api_v1::generation_object(
                     job, {*artifacts.store, clock, public_url, config.delivery.url_lifetime},
                     {.place = queue->place(job.id), .progress = progress});
               }),
      disk(config.data_dir, kLeastDisk),
      maintenance(chores(), clock, log),
      of_addresses(clock),
      of_keys(clock),
      daily([this](const std::string& account,
                   std::int64_t since) { return store->images_since(account, since); },
            clock),
      blocking(kBlockingThreads),
      server(server_options(config.server), handler(), log) {
  queue->set_workers(static_cast<std::size_t>(config.workers));
  queue->on_event([this](const contract::JobEvent& event) {
    hub.publish(event);
    notifier.on_event(event);
    if (event.type == "failed" || event.type == "canceled" || event.type == "expired") {
      boost::asio::post(blocking.executor(), [this, id = event.job_id] { give_back(id); });
    }
  });
}

engine::EngineOptions Service::Parts::engine_options() const {
  engine::EngineOptions options;
  options.adapter_cache_bytes = config.adapters.cache.count;
  options.adapter_folders = adapter_folders;
  options.embedding_folders =
      folders(config.data_dir / "embeddings", config.adapters.embeddings, embedding_folders({}));
  options.threads = static_cast<int>(config.threads);
  return options;
}

worker::ModelCacheOptions Service::Parts::cache_options() const {
  worker::ModelCacheOptions options;
  if (config.engine.memory.count != 0) options.memory_budget = config.engine.memory.count;
  options.pinned = config.models.pinned;
  options.engine = engine_options();
  return options;
}

worker::CatalogOptions Service::Parts::catalog_options() const {
  worker::CatalogOptions options;
  options.model_folders =
      folders(config.data_dir / "models", config.models.folders, model_folders());
  options.adapter_folders = adapter_folders;
  options.default_model = config.models.default_model;
  options.loading = composition(config.engine).value_or_throw();
  options.loading.tokenizer =
      resolve_tokenizer(config.models.tokenizer.string(), options.model_folders);
  options.hashes = config.data_dir / "model-hashes.json";
  options.most_adapters = static_cast<std::size_t>(config.limits.most_adapters);
  options.largest_side = config.limits.largest_side;
  options.most_steps = config.limits.most_steps;
  options.most_images = config.limits.most_images;
  return options;
}

worker::WorkerPoolOptions Service::Parts::pool_options() const {
  worker::WorkerPoolOptions options;
  options.workers = static_cast<std::size_t>(config.workers);
  options.threads = static_cast<int>(config.threads);
  options.preload = config.models.pinned;
  options.heartbeat_every = platform::Millis(config.queue.lease) / 3;
  options.adapters.folders = adapter_folders;
  options.adapters.downloads.folder = config.data_dir / "downloads";
  options.adapters.network = network;
  return options;
}

std::vector<gateway::Chore> Service::Parts::chores() {
  gateway::ChoreTimes times;
  times.artifacts = lifetimes(config.retention);
  if (config.queue.keep_jobs.count() != 0) times.jobs = config.queue.keep_jobs;
  std::vector<gateway::Chore> chores =
      gateway::service_chores({*queue, *artifacts.store, *messages, disk, clock, metrics}, times);
  chores.push_back(
      {"refusals", platform::Millis{5'000}, [this](std::stop_token) { return refusals.flush(); }});
  chores.push_back(
      {"keys", platform::Millis{60'000}, [this](std::stop_token) { return keys->flush(); }});
  chores.push_back({"telemetry", platform::Millis{10'000}, [this](std::stop_token) -> Result<void> {
                      metrics.dropped("spans", tracer->dropped());
                      metrics.dropped("log_lines", log.dropped());
                      return {};
                    }});
  chores.push_back({"load", platform::Millis{1'000}, [this](std::stop_token) -> Result<void> {
                      metrics.workers_needed(workers_needed());
                      return {};
                    }});
  if (templates) {
    chores.push_back(
        {"templates", platform::Millis{2'000}, [this](std::stop_token) -> Result<void> {
           const auto refreshed = templates->refresh();
           if (!refreshed.ok()) return refreshed.error();
           return {};
         }});
  }
  return chores;
}

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
  services.audit = [this](const http::Caller& who, std::string_view act) { note(who, act); };
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
  gateway::webhooks::add_routes(
      router, {*messages, notifier, blocking, network,
               [this](const http::Caller& who, std::string_view act) { note(who, act); }});
  http::Handler service = http::make_service(router, service_options(), {metrics, *tracer, log});
  return [this, service = std::move(service)](http::Request& request) {
    return count_refusals(service, refusals, request);
  };
}

void Service::Parts::note(const http::Caller& who, std::string_view act) {
  const platform::AuditAct entry{.actor = who.key_id,
                                 .action = std::string(act),
                                 .subject = "account " + who.account,
                                 .detail = {}};
  if (const auto written = audit->append({&entry, 1}); !written.ok()) {
    log.error("an act is missing in the audit log",
              {{"act", act}, {"error", written.error().message}});
  }
}

// So many that all that waits in each tier starts within the tier's longest wait; at least as many
// as are busy.
double Service::Parts::workers_needed() const {
  const queue::TierRules rules = tier_rules(config.queue);
  double needed = static_cast<double>(queue->running());
  for (const contract::Tier tier : contract::kTiers) {
    const auto index = static_cast<std::size_t>(tier);
    const auto seconds = queue->drain_seconds(tier);
    if (!seconds) continue;
    needed = std::max(needed, static_cast<double>(config.workers) * *seconds /
                                  std::max(1.0, double(rules.longest_wait[index].count())));
  }
  return needed;
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
  if (draining) reasons.push_back("The service is about to stop.");
  if (!workers.ready()) reasons.push_back("No worker can take a job.");
  if (std::string problem = disk.problem(); !problem.empty()) reasons.push_back(problem);
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

Service::Service(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Service::~Service() {
  if (!parts_) return;
  parts_->hub.close();
  parts_->server.stop();
  parts_->workers.stop();
  parts_->maintenance.stop();
  parts_->notifier.stop();
  // A thread that hangs in the engine uses what would be destroyed now.
  if (parts_->workers.left_behind()) _exit(1);
}

Result<std::unique_ptr<Service>> Service::open(ServiceConfig config, platform::LogSink& log) {
  try {
    return std::unique_ptr<Service>(new Service(std::make_unique<Parts>(std::move(config), log)));
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::exception& error) {
    return Error{ErrorCode::kIo, fmt::format("the service cannot be opened: {}", error.what())};
  }
}

const std::optional<platform::NewKey>& Service::first_key() const {
  return parts_->first_key;
}

Result<void> Service::start() {
  if (const auto started = parts_->server.start(); !started.ok()) return started.error();
  parts_->workers.start();
  parts_->notifier.start();
  parts_->maintenance.start();
  parts_->log.info("serving", {{"url", url()}});
  return {};
}

std::uint16_t Service::port() const {
  return parts_->server.port();
}

std::string Service::url() const {
  return scheme_and_place(parts_->config.server, port());
}

bool Service::drain(std::chrono::milliseconds deadline) {
  const auto begin = parts_->clock.now();
  parts_->draining = true;
  const bool finished = parts_->workers.drain(deadline);
  parts_->hub.close();
  const auto left = deadline - (parts_->clock.now() - begin);
  parts_->server.drain(std::max<std::chrono::milliseconds>(left, std::chrono::seconds(1)));
  const auto flushed = parts_->refusals.flush();
  const auto written = parts_->keys->flush();
  if (!flushed.ok() || !written.ok()) {
    parts_->log.warning("the last counts could not be written",
                        {{"error", (flushed.ok() ? written : flushed).error().message}});
  }
  return finished;
}

}  // namespace limner::cli
