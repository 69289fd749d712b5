// Fitness: whether this machine has what a worker needs, asked once before the first job.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/error.h"
#include "runpod/control_plane.h"

namespace limner::runpod {

struct Unfit {
  std::string check{};   // "memory", "disk"
  std::string reason{};  // one sentence
};

struct FitnessRules {
  double memory_gb = 4.0;      // RUNPOD_MIN_MEMORY_GB, available to this process
  double disk_percent = 10.0;  // RUNPOD_MIN_DISK_PERCENT, free on the disk of the data folder
  bool skip = false;           // RUNPOD_SKIP_AUTO_SYSTEM_CHECKS=true
};
// Errors: kInvalidArgument naming the variable that is no number.
Result<FitnessRules> read_fitness_rules(const Environment& environment);

// The first check that fails.
std::optional<Unfit> find_unfit(const FitnessRules& rules, const std::filesystem::path& folder);

}  // namespace limner::runpod
