// The short hash by which A1111's web UI and model sites know an adapter.
#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace limner::engine::lora {

// The first twelve hexadecimal digits of the SHA-256 over what follows a safetensors file's header
// (kohya's "sshs_model_hash", Civitai's AutoV3): the same for files that differ in metadata alone.
// Fails with kIo, and kInvalidModel where the file is shorter than its header says.
Result<std::string> short_hash(const std::filesystem::path& file);

// Remembers the hashes of files that did not change since. Safe to call from many threads.
class AdapterHashes {
 public:
  // "NAME: HASH" for each file, as the web UI's "Lora hashes" lists them; a file that can no longer
  // be read is left out.
  std::vector<std::string> notes(std::span<const std::filesystem::path> files);

 private:
  std::mutex mutex_;                          // guards known_
  std::map<std::string, std::string> known_;  // path, size and time of change -> hash
};

}  // namespace limner::engine::lora
