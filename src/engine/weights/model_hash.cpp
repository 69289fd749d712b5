#include "engine/weights/model_hash.h"

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "engine/weights/inspect.h"

namespace limner::engine::weights {
namespace {

namespace fs = std::filesystem;

// Path, size and time of every file: a hash is valid as long as these stay.
std::string fingerprint(const fs::path& model_path, const Inspection& model) {
  std::string key = fs::canonical(model_path).string() + "\n";
  const fs::path folder = fs::is_directory(model_path) ? model_path : model_path.parent_path();
  const auto add = [&](const FileReport& file) {
    const auto time = fs::last_write_time(folder / file.path).time_since_epoch().count();
    key += fmt::format("{}|{}|{}\n", file.path, file.bytes, time);
  };
  for (const FileReport& file : model.files) add(file);
  for (const ComponentReport& component : model.components) {
    for (const FileReport& file : component.files) add(file);
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

void remember(const fs::path& file, const std::string& key, const std::string& hash) {
  std::error_code ignored;
  fs::create_directories(file.parent_path(), ignored);
  const fs::path half = file.string() + fmt::format(".{}", getpid());
  std::ofstream(half) << hash << "\n" << key;
  fs::rename(half, file, ignored);
}

}  // namespace

Result<std::string> model_sha256(const fs::path& model, const fs::path& cache,
                                 const std::function<void()>& between) {
  try {
    const Inspection listed = inspect(model, {.hashes = false, .values = false}).value_or_throw();
    const std::string key = fingerprint(model, listed);
    const fs::path file = cache / fmt::format("{:016x}", std::hash<std::string>{}(key));
    if (!cache.empty()) {
      if (std::string known = remembered(file, key); !known.empty()) return known;
    }
    std::string hash = inspect(model, {.hashes = true, .values = false, .between = between})
                           .value_or_throw()
                           .sha256;
    if (!cache.empty()) remember(file, key, hash);
    return hash;
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const fs::filesystem_error& error) {
    return Error{ErrorCode::kIo, error.what()};
  }
}

}  // namespace limner::engine::weights
