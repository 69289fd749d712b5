// ResourceMonitor: what this worker has left of memory and disk, and whether a job can run in it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace limner::runpod {

// Bytes. Of host memory: the control group's (v2) limit or the machine's, whichever is less.
struct SpaceStatus {
  std::uint64_t total = 0, available = 0;
  std::uint64_t used() const { return total - std::min(total, available); }
  double usage_percent() const;
};

struct ResourceReport {
  SpaceStatus memory{};
  std::uint64_t resident = 0;               // of this process
  std::optional<std::uint64_t> gpu_free{};  // of the device that is drawn on; none on the CPU
  SpaceStatus data_disk{};                  // of the data folder
  std::optional<SpaceStatus> volume_disk{};
};

// {"memory": {"total_mb", "used_mb", "available_mb", "usage_percent"}, "process_mb",
// "gpu_memory": null or {"available_mb"}, "disk": {"data": ..., "volume": null or ...}}.
nlohmann::json to_json(const ResourceReport& report);

// Bytes that a job takes, as far as is known before it is drawn.
struct JobNeed {
  std::uint64_t weights = 0;   // of a model that is not loaded
  std::uint64_t pictures = 0;  // in memory and as files
  bool on_volume = false;      // the files go there
};

struct MonitorOptions {
  std::filesystem::path data_folder{};
  std::filesystem::path volume{};  // may be missing
  // That is drawn on: "cpu", "cuda:0"; "" while nothing is loaded yet.
  std::function<std::string()> device = [] { return "cpu"; };
  // What must stay free beside a job.
  std::uint64_t spare_memory = std::uint64_t{256} << 20;
  std::uint64_t spare_disk = std::uint64_t{64} << 20;
  // Host memory in use from which on models that nobody uses are let go.
  double pressure_percent = 92.0;
  std::filesystem::path proc = "/proc", control_groups = "/sys/fs/cgroup";  // other ones in tests
};

// Any thread may call; every call reads anew.
class ResourceMonitor {
 public:
  explicit ResourceMonitor(MonitorOptions options) : options_(std::move(options)) {}

  ResourceReport look() const;
  // Errors: kOutOfMemory and kUnavailable (no room on a disk), both retryable, with what is wanted
  // and what there is.
  Result<void> can_run(const JobNeed& need) const;
  bool under_pressure() const;

 private:
  SpaceStatus memory() const;

  const MonitorOptions options_;
};

}  // namespace limner::runpod
