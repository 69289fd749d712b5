#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "cli/engine_module/commands.h"
#include "engine/weights/inspect.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
using engine::weights::Inspection;

// Where hashes of unchanged models are remembered; empty when there is no home.
fs::path cache_file(const std::string& key) {
  fs::path base;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    base = cache;
  } else if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    base = fs::path(home) / ".cache";
  } else {
    return {};
  }
  return base / "limner" / "hashes" / fmt::format("{:016x}", std::hash<std::string>{}(key));
}

// Path, size and time of every file: a hash is valid as long as these stay.
std::string fingerprint(const fs::path& model_path, const Inspection& model) {
  std::string key = fs::canonical(model_path).string() + "\n";
  const fs::path folder = fs::is_directory(model_path) ? model_path : model_path.parent_path();
  const auto add = [&](const engine::weights::FileReport& file) {
    const auto time = fs::last_write_time(folder / file.path).time_since_epoch().count();
    key += fmt::format("{}|{}|{}\n", file.path, file.bytes, time);
  };
  for (const auto& file : model.files) add(file);
  for (const auto& component : model.components) {
    for (const auto& file : component.files) add(file);
  }
  return key;
}

std::string remembered(const fs::path& file, const std::string& key) {
  std::ifstream in(file);
  std::string hash;
  if (!std::getline(in, hash) || hash.size() != 64) return "";
  const std::string rest{std::istreambuf_iterator<char>(in), {}};
  return rest == key ? hash : "";
}

// A cache that cannot be written costs time at the next start, nothing else.
void remember(const fs::path& file, const std::string& key, const std::string& hash) {
  std::error_code ignored;
  fs::create_directories(file.parent_path(), ignored);
  const fs::path half = file.string() + fmt::format(".{}", getpid());
  std::ofstream(half) << hash << "\n" << key;
  fs::rename(half, file, ignored);
}

// "" when the model cannot be read: loading it says what is wrong.
std::string compute(const fs::path& folder) {
  const auto listed = engine::weights::inspect(folder, {.hashes = false, .values = false});
  if (!listed.ok()) return "";
  const std::string key = fingerprint(folder, *listed);
  const fs::path file = cache_file(key);
  if (const std::string known = remembered(file, key); !known.empty()) return known;
  const auto hashed = engine::weights::inspect(folder, {.hashes = true, .values = false});
  if (!hashed.ok()) return "";
  if (!file.empty()) remember(file, key, hashed->sha256);
  return hashed->sha256;
}

}  // namespace

std::future<std::string> model_hash(fs::path folder) {
  return std::async(std::launch::async, [folder = std::move(folder)]() -> std::string {
    try {
      return compute(folder);
    } catch (const std::exception&) {
      return "";
    }
  });
}

}  // namespace limner::cli
