#include "engine/weights/model_hash.h"

#include <cstdlib>

#include "cli/engine_module/commands.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;

// Where hashes of unchanged models are remembered; empty when there is no home.
fs::path cache_folder() {
  fs::path base;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    base = cache;
  } else if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    base = fs::path(home) / ".cache";
  } else {
    return {};
  }
  return base / "limner" / "hashes";
}

}  // namespace

std::future<std::string> model_hash(fs::path folder) {
  return std::async(std::launch::async, [folder = std::move(folder)]() -> std::string {
    const auto hash = engine::weights::model_sha256(folder, cache_folder());
    // What cannot be read has none: loading it says what is wrong.
    return hash.ok() ? *hash : "";
  });
}

}  // namespace limner::cli
