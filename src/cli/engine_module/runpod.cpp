// `limner runpod`: the parts of a serverless worker, made and run until somebody ends it.
#include "runpod/runner.h"

#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/json.h"
#include "cli/engine_module/commands.h"
#include "cli/engine_module/service_parts.h"
#include "cli/interrupt.h"
#include "cli/lora_paths.h"
#include "cli/model_paths.h"
#include "delivery/s3_client.h"
#include "delivery/webhook_sender.h"
#include "platform/clock.h"
#include "platform/config/load_config.h"
#include "runpod/fitness.h"
#include "runpod/platform_log.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using nlohmann::json;
using platform::ServiceConfig;

constexpr std::chrono::hours kUrlLifetime{24 * 7};
const fs::path kVolume = "/runpod-volume";

std::vector<fs::path> folders(const fs::path& data, const char* name,
                              const std::vector<fs::path>& configured,
                              const std::vector<fs::path>& usual) {
  std::vector<fs::path> all = {data / name};
  all.insert(all.end(), configured.begin(), configured.end());
  all.push_back(kVolume / name);
  all.insert(all.end(), usual.begin(), usual.end());
  return all;
}

// A long poll is silent for a minute and a half.
platform::http::NetworkRules platform_network() {
  platform::http::NetworkRules rules = platform::http::trusted_network();
  rules.stall_timeout = 120s;
  return rules;
}

std::unique_ptr<delivery::S3Client> open_bucket(const runpod::Environment& environment,
                                                platform::http::Exchange& exchange,
                                                const platform::Clock& clock) {
  const auto options = delivery::s3_from_bucket_environment([&](const std::string& name) {
                         const auto found = environment.find(name);
                         return found == environment.end() ? std::string() : found->second;
                       }).value_or_throw();
  if (!options) return nullptr;
  return delivery::S3Client::make(*options, exchange, clock).value_or_throw();
}

// In the order in which they are made; each may use those above it.
class ServerlessWorker {
 public:
  ServerlessWorker(ServiceConfig given, runpod::Environment its_environment)
      : config_(std::move(given)),
        environment_(std::move(its_environment)),
        settings_(runpod::read_settings(environment_).value_or_throw()),
        log_(json_lines(), config_.log.level, 2),
        network_(delivery::webhook_network(config_.egress_allow)),
        to_platform_(platform_network()),
        bucket_(open_bucket(environment_, to_platform_, clock_)),
        adapter_folders_(folders(config_.data_dir, "loras", config_.adapters.folders,
                                 lora_folders({}).folders())),
        models_(worker::ModelCache::open(cache_options(), config_.engine.device).value_or_throw()),
        catalog_(
            catalog_options(), [this] { return models_.loaded(); }, log_),
        adapters_(adapter_options()),
        drawer_({catalog_, models_, adapters_, network_, log_}, drawer_options()),
        plane_(settings_, {}, to_platform_),
        interrupts_([this](std::stop_token ended) {
          while (!ended.stop_requested() && !InterruptGuard::requested()) {
            std::this_thread::sleep_for(50ms);
          }
          stop_.request_stop();
        }) {}

  const runpod::PlatformSettings& settings() const { return settings_; }

  // One job, to stdout; the exit code as the SDK's: 0, or 1.
  int draw_once(const json& job, const Console& console) {
    const std::string id = job.value("id", std::string("local_test"));
    const auto drawn = drawer_.draw(id, job.at("input"), {}, stop_.get_token());
    const json answer = drawn.ok() ? json{{"output", drawn->output}}
                                   : json{{"error", runpod::error_text(drawn.error(), settings_)}};
    console.result(answer.dump());
    return drawn.ok() ? 0 : 1;
  }

  int serve(bool refresh) {
    log_.info("the safety checker is off: this worker has none");
    if (!fit()) return InterruptGuard::requested() ? 0 : 1;
    runpod::RunnerOptions options;
    options.concurrency = static_cast<std::size_t>(config_.workers);
    options.refresh_worker = refresh;
    runpod::Runner runner(options, plane_, drawer_, log_);
    runner.start();
    log_.info("ready", {{"worker", settings_.worker_id}});
    while (!InterruptGuard::requested() && !runner.finished()) std::this_thread::sleep_for(50ms);
    log_.info("no more jobs are taken",
              {{"seconds", static_cast<std::int64_t>(config_.drain.count())}});
    const bool delivered = runner.drain(config_.drain);
    log_.info("stopped", {{"all_delivered", delivered}});
    return delivered ? 0 : 1;
  }

 private:
  bool fit() {
    auto unfit = runpod::find_unfit(runpod::read_fitness_rules(environment_).value_or_throw(),
                                    config_.data_dir);
    if (!unfit) {
      const auto began = std::chrono::steady_clock::now();
      const auto model = drawer_.warm_up(stop_.get_token());
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
      if (model.ok()) {
        log_.info("the model is loaded", {{"model", *model}, {"seconds", took.count()}});
      } else if (model.error().code == ErrorCode::kCancelled) {
        return false;
      } else {
        unfit = runpod::Unfit{"model", model.error().message};
      }
    }
    if (!unfit) return true;
    log_.error("this machine is not fit for jobs",
               {{"check", unfit->check}, {"error", unfit->reason}});
    plane_.report_unhealthy(unfit->check, unfit->reason);
    return false;
  }

  bool json_lines() const {
    using platform::LogFormat;
    const LogFormat format = config_.log.format;
    return format == LogFormat::kJson || (format == LogFormat::kAuto && settings_.endpoint);
  }
  worker::ModelCacheOptions cache_options() const {
    worker::ModelCacheOptions options;
    if (config_.engine.memory.count != 0) options.memory_budget = config_.engine.memory.count;
    options.pinned = config_.models.pinned;
    options.engine.adapter_cache_bytes = config_.adapters.cache.count;
    options.engine.adapter_folders = adapter_folders_;
    options.engine.embedding_folders =
        folders(config_.data_dir, "embeddings", config_.adapters.embeddings, embedding_folders({}));
    options.engine.threads = static_cast<int>(config_.threads);
    return options;
  }
  worker::CatalogOptions catalog_options() const {
    worker::CatalogOptions options;
    options.model_folders =
        folders(config_.data_dir, "models", config_.models.folders, model_folders());
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
  worker::AdapterResolverOptions adapter_options() const {
    worker::AdapterResolverOptions options;
    options.folders = adapter_folders_;
    options.downloads.folder = config_.data_dir / "downloads";
    options.network = network_;
    return options;
  }
  runpod::DrawerOptions drawer_options() const {
    runpod::DrawerOptions options;
    options.most_pixels = config_.limits.most_pixels;
    if (!bucket_) return options;
    options.upload = [this](const std::string& job, std::int64_t index,
                            std::span<const std::uint8_t> png) -> Result<std::string> {
      const std::string key = fmt::format("{}/{}.png", job, index);
      if (const auto put = bucket_->put(key, "image/png", png); !put.ok()) return put.error();
      return bucket_->presign_get(key, kUrlLifetime);
    };
    return options;
  }

  const ServiceConfig config_;
  const runpod::Environment environment_;
  const runpod::PlatformSettings settings_;
  runpod::PlatformLog log_;
  platform::SystemClock clock_;
  const platform::http::NetworkRules network_;  // whom adapters may be fetched from
  platform::http::WebExchange to_platform_;
  std::unique_ptr<delivery::S3Client> bucket_;
  const std::vector<fs::path> adapter_folders_;
  worker::ModelCache models_;
  worker::CatalogBuilder catalog_;
  worker::AdapterResolver adapters_;
  runpod::JobDrawer drawer_;
  runpod::ControlPlane plane_;
  std::stop_source stop_;    // of what is done before or beside the queue
  std::jthread interrupts_;  // last: it ends first
};

// The file's or the option's own JSON, with an input. Throws Failure.
json read_test_job(const std::string& option) {
  std::string text = option;
  if (option.find_first_not_of(" \t\r\n") == std::string::npos || option.front() != '{') {
    const fs::path file = option.empty() ? fs::path("test_input.json") : fs::path(option);
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
      throw Failure(ErrorCode::kNotFound,
                    option.empty()
                        ? "RUNPOD_WEBHOOK_GET_JOB is not set, so there is no queue; for a job at "
                          "home, put {\"input\": {...}} into ./test_input.json or give --test-input"
                        : fmt::format("there is no file {}", file.string()));
    }
    text.assign(std::istreambuf_iterator<char>(stream), {});
  }
  json job = parse_json(text).value_or_throw();
  if (!job.is_object() || !job.contains("input") || job["input"].is_null()) {
    throw Failure(ErrorCode::kInvalidArgument,
                  "the test job has no input: want {\"input\": {...}}");
  }
  if (job.contains("id") && !job["id"].is_string()) {
    throw Failure(ErrorCode::kInvalidArgument, "the test job's id must be a string");
  }
  return job;
}

// As the SDK: what goes wrong before a job runs is exit code 1.
int failed(const Console& console, const Error& error) {
  console.fail(error);
  return 1;
}

}  // namespace

int runpod(const RunpodOptions& options, const Console& console) {
  const auto loaded = platform::load_config(config_sources(options.config));
  if (!loaded.ok()) return console.fail(loaded.error());
  std::signal(SIGPIPE, SIG_IGN);
  const InterruptGuard interrupts;
  try {
    const auto environment = platform::process_environment();
    const auto queue = environment.find("RUNPOD_WEBHOOK_GET_JOB");
    const bool at_home =
        !options.test_input.empty() || queue == environment.end() || queue->second.empty();
    json job;
    if (at_home) job = read_test_job(options.test_input);
    fs::create_directories(loaded->config.data_dir);
    ServerlessWorker worker(loaded->config, environment);
    return at_home ? worker.draw_once(job, console) : worker.serve(options.refresh_worker);
  } catch (const Failure& failure) {
    return failed(console, failure.error());
  } catch (const std::exception& error) {
    return failed(console, {ErrorCode::kInternal, error.what()});
  }
}

}  // namespace limner::cli
