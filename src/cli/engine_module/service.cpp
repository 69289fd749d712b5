#include "cli/engine_module/service.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>

#include "base/atomic_file.h"
#include "cli/engine_module/service_state.h"
#include "cli/lora_paths.h"
#include "cli/model_paths.h"
#include "platform/data_folder.h"
#include "platform/trace/otlp_headers.h"
#include "queue/sql_store.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
using platform::ServiceConfig;

// Below so much free disk no new requests are taken: what is accepted must also fit.
constexpr std::uint64_t kLeastDisk = std::uint64_t{64} << 20;
constexpr std::size_t kBlockingThreads = 16;

void make_folders(const fs::path& data) {
  platform::make_data_folder(data);
  for (const char* name : {"artifacts", "models", "loras", "embeddings"}) {
    fs::create_directories(data / name);
  }
  sync_folder(data);
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

// templates.json of the data folder may come later; one that was named must be there.
std::unique_ptr<platform::TemplateStore> open_templates(const ServiceConfig& config) {
  if (config.models.templates.empty()) {
    return platform::TemplateStore::open_or_wait(config.data_dir / "templates.json")
        .value_or_throw();
  }
  return platform::TemplateStore::open(config.models.templates).value_or_throw();
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
      sweeping(gateway::sweeping_chores(chore_services(), chore_times()), clock, log),
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

gateway::ChoreServices Service::Parts::chore_services() {
  return {*queue, *store, *artifacts.store, *messages, disk, clock, metrics};
}

gateway::ChoreTimes Service::Parts::chore_times() const {
  gateway::ChoreTimes times;
  times.artifacts = lifetimes(config.retention);
  if (config.queue.keep_jobs.count() != 0) times.jobs = config.queue.keep_jobs;
  return times;
}

std::vector<gateway::Chore> Service::Parts::chores() {
  std::vector<gateway::Chore> chores = gateway::service_chores(chore_services(), chore_times());
  chores.push_back(
      {"refusals", platform::Millis{1'000}, [this](std::stop_token) { return refusals.flush(); }});
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
  chores.push_back({"templates", platform::Millis{2'000}, [this](std::stop_token) -> Result<void> {
                      const auto refreshed = templates->refresh();
                      if (!refreshed.ok()) return refreshed.error();
                      return {};
                    }});
  return chores;
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

Service::Service(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Service::~Service() {
  if (!parts_) return;
  parts_->hub.close();
  parts_->server.stop();
  parts_->workers.stop();
  parts_->maintenance.stop();
  parts_->sweeping.stop();
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
  parts_->sweeping.start();
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
