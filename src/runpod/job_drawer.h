// JobDrawer: from a job's input to the object that its client gets.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <stop_token>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "platform/http/download.h"
#include "worker/adapter_resolver.h"
#include "worker/catalog_builder.h"
#include "worker/drawing.h"
#include "worker/model_cache.h"

namespace limner::runpod {

// Puts a picture where its client can fetch it, and gives the URL. Absent: there is no such place.
using Upload = std::function<Result<std::string>(const std::string& job, std::int64_t index,
                                                 std::span<const std::uint8_t> png)>;

// All of it outlives the drawer.
struct DrawerServices {
  worker::CatalogBuilder& catalog;
  worker::ModelCache models;
  worker::AdapterResolver& adapters;
  const platform::http::NetworkRules& network;
  Log& log;
};

struct DrawerOptions {
  // Of an answer; a larger one is uploaded, or, with nowhere to upload it, an error. The platform
  // takes 20 MB at most.
  std::size_t most_bytes = 19'000'000;
  std::int64_t most_pixels = std::int64_t{64} << 20;  // of all pictures of a job
  Upload upload{};
};

// Told on the thread that draws.
struct DrawerHooks {
  // Of a job that asked for it: {"step", "steps", "value"}.
  std::function<void(const nlohmann::json& progress)> progress{};
  // A picture of a job that asked for a stream: {"index", "seed", "image"}.
  std::function<void(const nlohmann::json& partial)> partial{};
};

struct Drawn {
  nlohmann::json output{};  // {"images", "seeds", "timings", "model", ...}
  bool streamed = false;
};

// Any thread may call.
class JobDrawer {
 public:
  JobDrawer(DrawerServices services, DrawerOptions options)
      : services_(std::move(services)), options_(std::move(options)) {}

  // Errors: as read_input, AdapterResolver::resolve and worker::draw; kCancelled when stopped;
  // kUnsupported when the answer is too large and there is nowhere to put it. A model that breaks
  // is loaded anew for the next job.
  Result<Drawn> draw(const std::string& job, const nlohmann::json& input, const DrawerHooks& hooks,
                     std::stop_token stop);

  // Loads the default model, so that the first job finds it there; its name.
  Result<std::string> warm_up(std::stop_token stop);

 private:
  class Run;

  const DrawerServices services_;
  const DrawerOptions options_;
};

}  // namespace limner::runpod
