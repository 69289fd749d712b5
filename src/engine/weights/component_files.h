// Which files of a component folder hold its weights. Names only: no tensor is read.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace limner::engine::weights {

struct ComponentFiles {
  std::vector<std::filesystem::path> files;  // in reading order
  // For sharded weights: tensor name -> file name, as the index says; empty for a single file.
  std::map<std::string, std::string, std::less<>> index;
  std::filesystem::path index_file;
  std::uint64_t index_total_size = 0;  // metadata.total_size, 0 when absent
};

// See Weights::open_component for the rules. Throws Failure(kNotFound, kInvalidModel, kUnsupported,
// kInvalidArgument).
ComponentFiles find_component_files(const std::filesystem::path& folder, std::string_view variant);

// See Weights::variants.
std::vector<std::string> find_variants(const std::filesystem::path& folder);

}  // namespace limner::engine::weights
