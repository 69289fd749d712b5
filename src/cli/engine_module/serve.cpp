// `limner serve`: the service until somebody ends it.
#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/engine_module/commands.h"
#include "cli/engine_module/service.h"
#include "cli/interrupt.h"
#include "platform/clock.h"
#include "platform/config/load_config.h"
#include "platform/log_sink.h"

namespace limner::cli {
namespace {

using namespace std::chrono_literals;

// Once, on stdout: where the service is, and the first key, which is never told again.
void announce(const Service& service, const Console& console) {
  const auto& key = service.first_key();
  if (console.json()) {
    nlohmann::json object = {{"url", service.url()}};
    if (key) object["key"] = key->key;
    console.result(object.dump());
    return;
  }
  console.result(fmt::format("limner serves {}", service.url()));
  if (!key) return;
  console.result(fmt::format(
      "The first key, with all rights; it is shown this once:\n\n    {0}\n\nTry it:\n"
      "    curl {1}/v1/generations -H 'Authorization: Bearer {0}' -H 'Content-Type: "
      "application/json' \\\n      -H 'Accept: image/png' -d '{{\"prompt\": \"a red circle above a "
      "blue square on a white background\"}}' -o picture.png",
      key->key, service.url()));
}

int run(const platform::LoadedConfig& loaded, const Console& console) {
  // Whoever reads the log, or takes a webhook, may leave: writing is an error then, not the end.
  std::signal(SIGPIPE, SIG_IGN);
  // A core would hold keys and prompts.
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  const platform::SystemClock clock;
  platform::LogSink log({.level = loaded.config.log.level, .format = loaded.config.log.format},
                        clock);
  for (const auto& warning : loaded.warnings) {
    log.warning("the configuration has a doubtful setting",
                {{"place", warning.place}, {"problem", warning.message}});
  }
  const InterruptGuard interrupts;
  auto service = Service::open(loaded.config, log);
  if (!service.ok()) return console.fail(service.error());
  if (const auto started = (*service)->start(); !started.ok()) return console.fail(started.error());
  announce(**service, console);
  while (!InterruptGuard::requested()) std::this_thread::sleep_for(50ms);
  log.info("draining: no new requests; a second signal stops at once",
           {{"seconds", static_cast<std::int64_t>(loaded.config.drain.count())}});
  const bool clean = (*service)->drain(loaded.config.drain);
  log.info("stopped", {{"handed_back", !clean}});
  return 0;
}

}  // namespace

int serve(const ConfigOptions& options, const Console& console) {
  const auto loaded = platform::load_config(config_sources(options));
  if (!loaded.ok()) return console.fail(loaded.error());
  return run(*loaded, console);
}

}  // namespace limner::cli
