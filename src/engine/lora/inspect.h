// What an adapter file is, without a model: for `limner lora inspect`. Needs no libtorch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/lora/adapter_file.h"

namespace limner::engine::lora {

struct AdapterInspection {
  std::filesystem::path path;
  std::map<std::string, std::size_t> kinds;  // "LoRA", "DoRA of LoRA" -> modules
  std::string family;  // "sd1", "sd2", "sdxl" by shapes; "" when they do not tell
  std::map<std::string, std::size_t> components;  // "unet", "text_encoder", ... -> modules
  std::map<std::int64_t, std::size_t> ranks;      // rank -> modules
  std::map<double, std::size_t> alphas;           // alpha -> modules
  std::size_t without_alpha = 0;                  // low-rank modules whose scale is 1
  std::vector<std::string> dtypes;                // "F16"
  std::vector<std::string> unknown_keys;          // tensors of no kind of adapter
  std::vector<std::pair<std::string, std::uint64_t>> tags;  // trained words, most frequent first
  std::string trigger;                                      // what the header says to write, or ""
  std::map<std::string, std::string> metadata;              // the header, long values cut
  std::uint64_t bytes = 0;
  std::string sha256;      // of the file
  std::string short_hash;  // see adapter_hash.h
};

// "sd1", "sd2", "sdxl" by the widths of its modules, or "" when they do not tell.
std::string family_of(const AdapterFile& file);

// Fails with what AdapterFile::read says. Without `hash` its hashes stay "", and no more of the
// file is read than its header and alphas.
Result<AdapterInspection> inspect_adapter(const std::filesystem::path& file, bool hash = true);

}  // namespace limner::engine::lora
