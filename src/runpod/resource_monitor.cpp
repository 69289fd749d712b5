#include "runpod/resource_monitor.h"

#include <fmt/format.h>

#include <cmath>

#include "base/human_bytes.h"
#include "base/system_memory.h"
#include "engine/engine.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::optional<SpaceStatus> disk_of(const fs::path& folder) {
  std::error_code failed;
  const auto space = fs::space(folder, failed);
  if (failed || space.capacity == 0) return std::nullopt;
  return SpaceStatus{space.capacity, space.available};
}

double megabytes(std::uint64_t bytes) {
  return std::round(static_cast<double>(bytes) / 1e6);
}

json to_json(const SpaceStatus& space) {
  return {{"total_mb", megabytes(space.total)},
          {"used_mb", megabytes(space.used())},
          {"available_mb", megabytes(space.available)},
          {"usage_percent", std::round(space.usage_percent() * 10) / 10}};
}

Error no_room(const fs::path& folder, std::uint64_t wanted, std::uint64_t available) {
  return Error{ErrorCode::kUnavailable,
               fmt::format("[resources] the disk of {} has {} free, and the job wants {}",
                           folder.string(), human_bytes(available), human_bytes(wanted)),
               true};
}

}  // namespace

double SpaceStatus::usage_percent() const {
  return total == 0 ? 0.0 : 100.0 * static_cast<double>(used()) / static_cast<double>(total);
}

json to_json(const ResourceReport& report) {
  return {
      {"memory", to_json(report.memory)},
      {"process_mb", megabytes(report.resident)},
      {"gpu_memory",
       report.gpu_free ? json{{"available_mb", megabytes(*report.gpu_free)}} : json()},
      {"disk",
       {{"data", to_json(report.data_disk)},
        {"volume", report.volume_disk ? to_json(*report.volume_disk) : json()}}},
  };
}

SpaceStatus ResourceMonitor::memory() const {
  const MemoryStatus host = host_memory(options_.proc, options_.control_groups);
  return {host.total, host.available};
}

ResourceReport ResourceMonitor::look() const {
  ResourceReport report;
  report.memory = memory();
  report.resident = resident_bytes();
  if (const std::string device = options_.device(); device.starts_with("cuda")) {
    if (const auto free = engine::free_memory(device); free.ok()) report.gpu_free = *free;
  }
  report.data_disk = disk_of(options_.data_folder).value_or(SpaceStatus{});
  if (!options_.volume.empty()) report.volume_disk = disk_of(options_.volume);
  return report;
}

Result<void> ResourceMonitor::can_run(const JobNeed& need) const {
  const ResourceReport now = look();
  // Weights of a GPU's models are read through the host's memory and stay in none of it.
  const std::uint64_t host = need.pictures + (options_.device() == "cpu" ? need.weights : 0);
  if (now.gpu_free && need.weights > *now.gpu_free) {
    return Error{ErrorCode::kOutOfMemory,
                 fmt::format("[resources] the GPU has {} free, and the model takes {}",
                             human_bytes(*now.gpu_free), human_bytes(need.weights)),
                 true};
  }
  if (host + options_.spare_memory > now.memory.available) {
    return Error{ErrorCode::kOutOfMemory,
                 fmt::format("[resources] {} of memory are left, and the job wants {} beside {}",
                             human_bytes(now.memory.available), human_bytes(host),
                             human_bytes(options_.spare_memory)),
                 true};
  }
  const std::uint64_t files = options_.spare_disk + (need.on_volume ? 0 : need.pictures);
  if (now.data_disk.total > 0 && now.data_disk.available < files) {
    return no_room(options_.data_folder, files, now.data_disk.available);
  }
  if (need.on_volume && now.volume_disk && now.volume_disk->available < need.pictures) {
    return no_room(options_.volume, need.pictures, now.volume_disk->available);
  }
  return {};
}

bool ResourceMonitor::under_pressure() const {
  return memory().usage_percent() > options_.pressure_percent;
}

}  // namespace limner::runpod
