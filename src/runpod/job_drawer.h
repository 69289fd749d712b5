// JobDrawer: from a job's input to the object that its client gets.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "platform/clock.h"
#include "platform/http/download.h"
#include "platform/templates/template_store.h"
#include "runpod/job_input.h"
#include "runpod/resource_monitor.h"
#include "runpod/result_store.h"
#include "runpod/volume_folder.h"
#include "worker/adapter_resolver.h"
#include "worker/catalog_builder.h"
#include "worker/drawing.h"
#include "worker/model_breakers.h"
#include "worker/model_cache.h"

namespace limner::runpod {

// Puts files where clients can fetch them, and gives their URLs in order. Absent: there is no such
// place.
using Upload = std::function<Result<std::vector<std::string>>(std::vector<ResultFile> files,
                                                              std::stop_token stop)>;

// All of it outlives the drawer.
struct DrawerServices {
  worker::CatalogBuilder& catalog;
  worker::ModelCache models;
  worker::AdapterResolver& adapters;
  const platform::http::NetworkRules& network;
  Log& log;
  const platform::Clock& clock;
  const ResourceMonitor& monitor;
  platform::TemplateStore* templates = nullptr;  // null: there are none
  const VolumeFolder* volume = nullptr;          // null: there is none
};

struct DrawerOptions {
  // Of an answer; a larger one is uploaded, or, with nowhere to upload it, an error. The platform
  // takes 20 MB at most.
  std::size_t most_bytes = 19'000'000;
  std::int64_t most_pixels = std::int64_t{64} << 20;  // of all pictures of a job
  Upload upload{};
  worker::Patience patience{};  // with the engine; who looks at the pulse of a job gives it up then
  JobKind kind = JobKind::kGenerate;   // of jobs that name none
  bool report_unknown = false;         // fields that are not known are told of, not refused
  platform::BreakerOptions breaker{};  // of each model
};

// Told on the thread that draws.
struct DrawerHooks {
  // Of a job that asked for it: {"step", "steps", "value"}.
  std::function<void(const nlohmann::json& progress)> progress{};
  // A picture of a job that asked for a stream: {"index", "seed", "image"}.
  std::function<void(const nlohmann::json& partial)> partial{};
  // The drawing is over and its files go to storage: the device is free for another job.
  std::function<void()> uploading{};
  // Beaten by every call of the engine, for who looks whether it hangs; null: nobody does. Outlives
  // the call of draw().
  worker::Pulse* pulse = nullptr;
  // As worker::DrawingHooks::at; a test holds the thread there.
  std::function<void(std::string_view point)> at{};
};

struct Drawn {
  nlohmann::json output{};  // as docs/runpod.md has it, for each kind of job
  bool streamed = false;
};

// Any thread may call.
class JobDrawer {
 public:
  JobDrawer(DrawerServices services, DrawerOptions options);

  // Errors: as read_input, ResourceMonitor::can_run, VolumeFolder, AdapterResolver::resolve,
  // worker::draw and the upload; kInvalidModel for a model that cannot be loaded; kUnavailable for
  // one that keeps failing; kCancelled when stopped; kUnsupported for a picture to draw from that
  // no model takes, and for an answer that is too large with nowhere to put it. A model that breaks
  // is loaded anew for the next job.
  Result<Drawn> draw(const std::string& job, const nlohmann::json& input, const DrawerHooks& hooks,
                     std::stop_token stop);

  // Loads the default model, and draws a small picture that nobody gets where the first job would
  // wait notably for what is made on first use; the model's name.
  Result<std::string> warm_up(std::stop_token stop);

  // What stands in the details of an error: resources, the default model, the device, and what the
  // worker does or failed in.
  nlohmann::json state() const;

 private:
  class Run;
  void clean_up(const std::string& job, const Result<Drawn>& drawn);

  const DrawerServices services_;
  const DrawerOptions options_;
  worker::ModelBreakers breakers_;
  std::atomic<worker::WorkerState> state_{worker::WorkerState::kInitializing};
  std::atomic<std::int64_t> completed_{0}, failed_{0};
};

}  // namespace limner::runpod
