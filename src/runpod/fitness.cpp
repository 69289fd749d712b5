#include "runpod/fitness.h"

#include <fmt/format.h>

#include <charconv>

#include "base/quote.h"
#include "base/system_memory.h"

namespace limner::runpod {
namespace {

void read(const Environment& environment, const char* name, double most, double& number) {
  const auto found = environment.find(name);
  if (found == environment.end() || found->second.empty()) return;
  const std::string& text = found->second;
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() ||
      !(value >= 0 && value <= most)) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("{} must be a number from 0 to {}, got {}", name, most, quote(text)));
  }
  number = value;
}

}  // namespace

Result<FitnessRules> read_fitness_rules(const Environment& environment) {
  FitnessRules rules;
  try {
    read(environment, "RUNPOD_MIN_MEMORY_GB", 1e6, rules.memory_gb);
    read(environment, "RUNPOD_MIN_DISK_PERCENT", 100, rules.disk_percent);
  } catch (const Failure& failure) {
    return failure.error();
  }
  const auto skip = environment.find("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS");
  rules.skip = skip != environment.end() && (skip->second == "true" || skip->second == "True");
  return rules;
}

std::optional<Unfit> find_unfit(const FitnessRules& rules, const std::filesystem::path& folder) {
  if (rules.skip) return std::nullopt;
  const double memory = static_cast<double>(available_memory_bytes()) / 1e9;
  if (memory < rules.memory_gb) {
    return Unfit{"memory", fmt::format("want {:.1f} GB of free memory, there are {:.1f}",
                                       rules.memory_gb, memory)};
  }
  std::error_code failed;
  const auto space = std::filesystem::space(folder, failed);
  if (failed || space.capacity == 0) {
    return Unfit{"disk", fmt::format("the disk of {} cannot be asked: {}", folder.string(),
                                     failed.message())};
  }
  const double percent =
      100.0 * static_cast<double>(space.available) / static_cast<double>(space.capacity);
  if (percent < rules.disk_percent) {
    return Unfit{"disk", fmt::format("want {:.1f} % of the disk of {} free, it is {:.1f} %",
                                     rules.disk_percent, folder.string(), percent)};
  }
  return std::nullopt;
}

}  // namespace limner::runpod
