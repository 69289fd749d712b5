// What loading an adapter found.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "engine/lora/adapter_file.h"
#include "engine/lora/model_layers.h"

namespace limner::engine::lora {

struct UnmatchedKey {
  std::string name;     // a layer as the file spells it, or a tensor of no known kind
  std::string nearest;  // "(did you mean ...?)", or ""
};

struct AdapterReport {
  std::string file;  // its name
  std::filesystem::path path;
  std::string kinds;                           // "LoRA", "LoRA, full difference", "DoRA of LoKr"
  std::map<std::string, std::size_t> matched;  // component -> layers
  std::vector<UnmatchedKey> unmatched;
  std::string family, model_family;  // "sd1", "sd2", "sdxl" by shapes, or ""
  std::uint64_t bytes = 0;
  std::int64_t lowest_rank = 0, highest_rank = 0;  // 0: no low-rank module
  std::size_t layers() const {
    std::size_t sum = 0;
    for (const auto& [component, count] : matched) sum += count;
    return sum;
  }
};

// Finds the file's modules among the model's layers.
AdapterReport match(const AdapterFile& file, const ModelLayers& model);
// Throws Failure(kInvalidModel) when nothing matched, and when a key did not and `allow_partial` is
// not set; the message names the first few with their nearest names.
void check_matches(const AdapterReport& report, bool allow_partial);

}  // namespace limner::engine::lora
