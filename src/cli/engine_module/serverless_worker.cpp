#include "cli/engine_module/serverless_worker.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>

#include "cli/engine_module/service_parts.h"
#include "cli/interrupt.h"
#include "cli/lora_paths.h"
#include "cli/model_paths.h"
#include "delivery/crypto.h"
#include "delivery/webhook_sender.h"
#include "runpod/job_error.h"
#include "runpod/storage_environment.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using nlohmann::json;

// Of an answer, where larger ones have a place to go: the platform takes 10 MB for /run, 20 MB for
// /runsync, and does not say by which of them a job came.
constexpr std::size_t kMostBesideStorage = 9'500'000;

// A long poll is silent for a minute and a half.
platform::http::NetworkRules platform_network() {
  platform::http::NetworkRules rules = platform::http::trusted_network();
  rules.stall_timeout = 120s;
  return rules;
}

}  // namespace

ServerlessWorker::ServerlessWorker(platform::ServiceConfig config, runpod::Environment environment,
                                   Log& log)
    : config_(std::move(config)),
      environment_(std::move(environment)),
      settings_(runpod::read_settings(environment_).value_or_throw()),
      log_(log),
      network_(delivery::webhook_network(config_.egress_allow)),
      to_platform_(platform_network()),
      store_(runpod::ResultStore::open(
                 runpod::storage_config(config_.delivery, environment_).value_or_throw(),
                 to_platform_, clock_)
                 .value_or_throw()),
      adapter_folders_(folders("loras", config_.adapters.folders, lora_folders({}).folders())),
      models_(worker::ModelCache::open(cache_options(), config_.engine.device).value_or_throw()),
      catalog_(
          catalog_options(), [this] { return models_.loaded(); }, log_),
      adapters_(adapter_options()),
      templates_(open_templates()),
      volume_(open_volume()),
      monitor_({.data_folder = config_.data_dir,
                .volume = volume_ ? volume_->path() : fs::path(),
                .device = [this] { return models_.device(); }}),
      drawer_({catalog_, models_, adapters_, network_, log_, clock_, monitor_, templates_.get(),
               volume_ ? &*volume_ : nullptr},
              drawer_options()),
      plane_(settings_, {}, to_platform_),
      interrupts_([this](std::stop_token ended) {
        while (!ended.stop_requested() && !InterruptGuard::requested()) {
          std::this_thread::sleep_for(50ms);
        }
        stop_.request_stop();
      }) {}

// ---- what it does

json ServerlessWorker::draw_once(const json& job) {
  const std::string id = job.value("id", std::string("local_test"));
  const auto drawn = drawer_.draw(id, job.at("input"), {}, stop_.get_token());
  if (drawn.ok()) return {{"output", drawn->output}};
  return {{"error", runpod::error_text(drawn.error(), settings_, drawer_.state(), clock_.wall())}};
}

bool ServerlessWorker::make_ready() {
  log_.info("the safety checker is off: this worker has none");
  log_.info("jobs that name no kind are of this one", {{"kind", config_.runpod.kind}});
  const auto unfit = find_unfit();
  if (!unfit) return true;
  if (stop_.stop_requested()) return false;
  log_.error("this machine is not fit for jobs",
             {{"check", unfit->check}, {"error", unfit->reason}});
  plane_.report_unhealthy(unfit->check, unfit->reason);
  return false;
}

std::optional<runpod::Unfit> ServerlessWorker::find_unfit() {
  if (auto unfit = runpod::find_unfit(runpod::read_fitness_rules(environment_).value_or_throw(),
                                      config_.data_dir)) {
    return unfit;
  }
  if (config_.runpod.kind == runpod::name(runpod::JobKind::kHeadshot)) {
    if (!store_) {
      return runpod::Unfit{"storage",
                           "headshots go to storage, and there is none: set SUPABASE_URL, "
                           "SUPABASE_SERVICE_ROLE_KEY and SUPABASE_BUCKET, or the BUCKET_* "
                           "variables"};
    }
    if (const auto there = store_->check(); !there.ok()) {
      return runpod::Unfit{"storage", there.error().message};
    }
  }
  if (config_.runpod.load == "first_job") return std::nullopt;
  const auto began = std::chrono::steady_clock::now();
  const auto model = drawer_.warm_up(stop_.get_token());
  if (!model.ok()) return runpod::Unfit{"model", model.error().message};
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  log_.info("the model is loaded", {{"model", *model}, {"seconds", took.count()}});
  return std::nullopt;
}

bool ServerlessWorker::serve(bool refresh) {
  if (!make_ready()) return InterruptGuard::requested();
  runpod::RunnerOptions options;
  options.concurrency = static_cast<std::size_t>(config_.workers);
  options.refresh_worker = refresh;
  options.outbox.folder = config_.data_dir;
  if (store_) {
    options.outbox.store = [this](const std::string& job, const std::string& result) {
      const auto bytes = delivery::bytes_of(result);
      return store_
          ->begin({.key = fmt::format("{}/result.json", job),
                   .content_type = "application/json",
                   .bytes = {bytes.begin(), bytes.end()}})
          .get();
    };
  }
  runpod::Runner runner(options, plane_, drawer_, log_);
  runner.start();
  log_.info("ready", {{"worker", settings_.worker_id}});
  while (!InterruptGuard::requested() && !runner.finished()) std::this_thread::sleep_for(50ms);
  log_.info("no more jobs are taken",
            {{"seconds", static_cast<std::int64_t>(config_.drain.count())}});
  const bool delivered = runner.drain(config_.drain);
  log_.info("stopped", {{"all_delivered", delivered}});
  // A thread that hangs in the engine uses what would be destroyed now.
  if (runner.left_behind()) _exit(1);
  return delivered;
}

// ---- what its parts are made with

std::vector<fs::path> ServerlessWorker::folders(const char* name,
                                                const std::vector<fs::path>& configured,
                                                const std::vector<fs::path>& usual) const {
  std::vector<fs::path> all = {config_.data_dir / name};
  all.insert(all.end(), configured.begin(), configured.end());
  all.push_back(config_.runpod.volume / name);
  all.insert(all.end(), usual.begin(), usual.end());
  return all;
}

// A file that was named must be there; the data folder's goes before the volume's.
std::unique_ptr<platform::TemplateStore> ServerlessWorker::open_templates() const {
  using platform::TemplateStore;
  if (!config_.models.templates.empty()) {
    return TemplateStore::open(config_.models.templates).value_or_throw();
  }
  const fs::path own = config_.data_dir / "templates.json";
  const bool there = fs::exists(own);
  return TemplateStore::open_or_wait(there ? own : config_.runpod.volume / "templates.json")
      .value_or_throw();
}

std::optional<runpod::VolumeFolder> ServerlessWorker::open_volume() const {
  auto volume = runpod::VolumeFolder::open(config_.runpod.volume);
  if (!volume.ok()) return std::nullopt;
  return std::move(*volume);
}

worker::ModelCacheOptions ServerlessWorker::cache_options() const {
  worker::ModelCacheOptions options;
  if (config_.engine.memory.count != 0) options.memory_budget = config_.engine.memory.count;
  options.pinned = config_.models.pinned;
  options.engine.adapter_cache_bytes = config_.adapters.cache.count;
  options.engine.adapter_folders = adapter_folders_;
  options.engine.embedding_folders =
      folders("embeddings", config_.adapters.embeddings, embedding_folders({}));
  options.engine.threads = static_cast<int>(config_.threads);
  return options;
}

worker::CatalogOptions ServerlessWorker::catalog_options() const {
  worker::CatalogOptions options;
  options.model_folders = folders("models", config_.models.folders, model_folders());
  options.adapter_folders = adapter_folders_;
  options.default_model = config_.models.default_model;
  options.most_adapters = static_cast<std::size_t>(config_.limits.most_adapters);
  options.largest_side = config_.limits.largest_side;
  options.most_steps = config_.limits.most_steps;
  options.most_images = config_.limits.most_images;
  options.loading = composition(config_.engine).value_or_throw();
  options.loading.tokenizer =
      resolve_tokenizer(config_.models.tokenizer.string(), options.model_folders);
  options.hashes = config_.data_dir / "model-hashes.json";
  return options;
}

worker::AdapterResolverOptions ServerlessWorker::adapter_options() const {
  worker::AdapterResolverOptions options;
  options.folders = adapter_folders_;
  options.downloads.folder = config_.data_dir / "downloads";
  options.network = network_;
  return options;
}

runpod::DrawerOptions ServerlessWorker::drawer_options() {
  runpod::DrawerOptions options;
  options.most_pixels = config_.limits.most_pixels;
  options.kind = runpod::kind_named(config_.runpod.kind).value_or(runpod::JobKind::kGenerate);
  options.report_unknown = config_.runpod.unknown_fields == "report";
  if (!store_) return options;
  options.most_bytes = kMostBesideStorage;
  options.upload = [this](std::vector<runpod::ResultFile> files, std::stop_token stop) {
    return store_->put_all(std::move(files), std::move(stop));
  };
  return options;
}

}  // namespace limner::cli
