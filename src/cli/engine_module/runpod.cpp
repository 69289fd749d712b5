// `limner runpod`: the platform's queue, a load-balancing endpoint, or an endpoint or a job at
// home.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "base/json.h"
#include "cli/engine_module/commands.h"
#include "cli/engine_module/direct_service.h"
#include "cli/engine_module/endpoint_server.h"
#include "cli/engine_module/serverless_worker.h"
#include "cli/interrupt.h"
#include "platform/config/load_config.h"
#include "runpod/platform_log.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using nlohmann::json;

// The file's or the option's own JSON, with an input. Throws Failure.
json read_test_job(const std::string& option) {
  std::string text = option;
  if (option.find_first_not_of(" \t\r\n") == std::string::npos || option.front() != '{') {
    const fs::path file = option.empty() ? fs::path("test_input.json") : fs::path(option);
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
      throw Failure(
          ErrorCode::kNotFound,
          option.empty()
              ? "RUNPOD_WEBHOOK_GET_JOB is not set, so there is no queue; for a job at "
                "home, put {\"input\": {...}} into ./test_input.json, or give --test-input or "
                "--serve-api"
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

// On an endpoint, where the platform reads them.
bool json_lines(const platform::ServiceConfig& config, const runpod::Environment& environment) {
  using platform::LogFormat;
  const auto endpoint = environment.find("RUNPOD_ENDPOINT_ID");
  const bool hosted = endpoint != environment.end() && !endpoint->second.empty();
  return config.log.format == LogFormat::kJson || (config.log.format == LogFormat::kAuto && hosted);
}

// As the SDK: what goes wrong before a job runs is exit code 1.
int failed(const Console& console, const Error& error) {
  console.fail(error);
  return 1;
}

// What every mode is given.
struct Setup {
  const RunpodOptions& options;
  platform::ServiceConfig config;
  runpod::Environment environment;
  Log& log;
  const Console& console;
};

int draw_once(const Setup& setup) {
  const json job = read_test_job(setup.options.test_input);
  ServerlessWorker worker(setup.config, setup.environment, setup.log);
  const json answer = worker.draw_once(job);
  setup.console.result(answer.dump());
  return answer.contains("output") ? 0 : 1;
}

int serve_queue(const Setup& setup) {
  ServerlessWorker worker(setup.config, setup.environment, setup.log);
  return worker.serve(setup.options.refresh_worker) ? 0 : 1;
}

void announce(const Setup& setup, const std::string& what, const std::string& url) {
  setup.console.result(setup.console.json() ? json{{"url", url}}.dump()
                                            : fmt::format("{} {}", what, url));
}

// The worker meets its endpoint over HTTP, as it meets the platform.
int serve_api(Setup setup) {
  const RunpodOptions& options = setup.options;
  if (options.api_concurrency != 0) setup.config.workers = options.api_concurrency;
  EndpointServer endpoint({options.api_host, options.api_port, setup.config.egress_allow},
                          setup.log);
  endpoint.start().value_or_throw();
  announce(setup, "The endpoint is at", endpoint.url());
  for (const auto& [name, value] : endpoint.worker_environment()) setup.environment[name] = value;
  const int exit_code = serve_queue(setup);
  endpoint.stop();
  return exit_code;
}

int serve_directly(const Setup& setup) {
  DirectOptions options = read_direct_options(setup.environment).value_or_throw();
  options.concurrency = static_cast<std::size_t>(setup.config.workers);
  options.most_waiting = 3 * options.concurrency;
  std::optional<ServerlessWorker> worker;  // outlives the requests that use it
  DirectService service(options, setup.log);
  service.start().value_or_throw();
  announce(setup, "The worker is at", service.url());
  worker.emplace(setup.config, setup.environment, setup.log);
  if (!worker->make_ready()) return InterruptGuard::requested() ? 0 : 1;
  service.ready(worker->drawer(), worker->settings());
  setup.log.info("ready");
  while (!InterruptGuard::requested() && !service.broken()) std::this_thread::sleep_for(50ms);
  setup.log.info("no more requests are taken",
                 {{"seconds", static_cast<std::int64_t>(setup.config.drain.count())}});
  const bool finished = service.drain(setup.config.drain);
  setup.log.info("stopped", {{"all_finished", finished}});
  // A thread that hangs in the engine uses what would be destroyed now.
  if (service.left_behind()) _exit(1);
  return finished && !service.broken() ? 0 : 1;
}

int run(const Setup& setup) {
  const RunpodOptions& options = setup.options;
  fs::create_directories(setup.config.data_dir);
  if (options.load_balancing) return serve_directly(setup);
  if (options.serve_api) return serve_api(setup);
  const auto queue = setup.environment.find("RUNPOD_WEBHOOK_GET_JOB");
  const bool has_queue = queue != setup.environment.end() && !queue->second.empty();
  return has_queue && options.test_input.empty() ? serve_queue(setup) : draw_once(setup);
}

}  // namespace

int runpod(const RunpodOptions& options, const Console& console) {
  const auto loaded = platform::load_config(config_sources(options.config));
  if (!loaded.ok()) return console.fail(loaded.error());
  std::signal(SIGPIPE, SIG_IGN);
  const InterruptGuard interrupts;
  const auto environment = platform::process_environment();
  runpod::PlatformLog log(json_lines(loaded->config, environment), loaded->config.log.level, 2);
  try {
    return run({options, loaded->config, environment, log, console});
  } catch (const Failure& failure) {
    return failed(console, failure.error());
  } catch (const std::exception& error) {
    return failed(console, {ErrorCode::kInternal, error.what()});
  }
}

}  // namespace limner::cli
