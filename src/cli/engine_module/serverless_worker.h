// ServerlessWorker: the parts of a serverless worker, wired, and its service to the platform's
// queue.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/log.h"
#include "platform/clock.h"
#include "platform/config/load_config.h"
#include "runpod/control_plane.h"
#include "runpod/fitness.h"
#include "runpod/job_drawer.h"
#include "runpod/result_store.h"
#include "runpod/runner.h"

namespace limner::cli {

// Lives on the thread that makes it. A signal that InterruptGuard sees ends what it does.
class ServerlessWorker {
 public:
  // `log` outlives it. Throws Failure: a variable, a folder, the bucket or the device is wrong.
  ServerlessWorker(platform::ServiceConfig config, runpod::Environment environment, Log& log);

  runpod::JobDrawer& drawer() { return drawer_; }
  const runpod::PlatformSettings& settings() const { return settings_; }

  // One job, {"id"?, "input"}, that no platform sent: {"output": ...} or {"error": "..."}.
  nlohmann::json draw_once(const nlohmann::json& job);

  // Checks the machine and loads the default model. False: it has told the platform and the log
  // why it takes no jobs, or was interrupted.
  bool make_ready();
  // The platform's queue until a signal, or until `refresh` and one job; then drains. True: all
  // that was taken was answered.
  bool serve(bool refresh);

 private:
  std::vector<std::filesystem::path> folders(const char* name,
                                             const std::vector<std::filesystem::path>& configured,
                                             const std::vector<std::filesystem::path>& usual) const;
  std::unique_ptr<platform::TemplateStore> open_templates() const;
  std::optional<runpod::VolumeFolder> open_volume() const;
  worker::ModelCacheOptions cache_options() const;
  worker::CatalogOptions catalog_options() const;
  worker::AdapterResolverOptions adapter_options() const;
  runpod::DrawerOptions drawer_options();
  std::optional<runpod::Unfit> find_unfit();

  // In the order in which they are made; each may use those above it.
  const platform::ServiceConfig config_;
  const runpod::Environment environment_;
  const runpod::PlatformSettings settings_;
  Log& log_;
  platform::SystemClock clock_;
  const platform::http::NetworkRules network_;  // whom adapters may be fetched from
  platform::http::WebExchange to_platform_;
  std::unique_ptr<runpod::ResultStore> store_;  // null: nowhere to put files
  const std::vector<std::filesystem::path> adapter_folders_;
  worker::ModelCache models_;
  worker::CatalogBuilder catalog_;
  worker::AdapterResolver adapters_;
  std::unique_ptr<platform::TemplateStore> templates_;
  const std::optional<runpod::VolumeFolder> volume_;  // nothing: there is none
  const runpod::ResourceMonitor monitor_;
  runpod::JobDrawer drawer_;
  runpod::ControlPlane plane_;
  std::stop_source stop_;    // of what is done before or beside the queue
  std::jthread interrupts_;  // last: it ends first
};

}  // namespace limner::cli
