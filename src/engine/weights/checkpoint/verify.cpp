#include "engine/weights/checkpoint/verify.h"

#include <fmt/format.h>

#include "base/file_hash.h"
#include "engine/weights/checkpoint/folder_writer.h"
#include "engine/weights/inspect.h"
#include "engine/weights/json.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

namespace fs = std::filesystem;

// Paths in a manifest lead below the folder, whoever wrote it.
bool stays_inside(const fs::path& path) {
  if (path.empty() || path.is_absolute()) return false;
  for (const fs::path& part : path) {
    if (part == "..") return false;
  }
  return true;
}

void compare(const fs::path& root, const Inspection& model, Verification& out) {
  const nlohmann::json manifest = read_json(root / kManifestName, kManifestName);
  const auto files = manifest.is_object() ? manifest.find("files") : manifest.end();
  if (files == manifest.end() || !files->is_object())
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: wants an object 'files'", kManifestName));
  for (const auto& [path, file] : files->items()) {
    if (!stays_inside(path) || !file.is_object()) {
      out.problems.push_back(
          fmt::format("{}: {} is no file of this folder", kManifestName, quote(path)));
      continue;
    }
    ++out.files;
    std::error_code error;
    const std::uint64_t bytes = fs::file_size(root / path, error);
    const std::uint64_t wanted = file.value("bytes", std::uint64_t{0});
    if (error) {
      out.problems.push_back(fmt::format("{}: is missing", quote(path)));
    } else if (bytes != wanted) {
      out.problems.push_back(
          fmt::format("{}: has {} bytes, the manifest says {}", quote(path), bytes, wanted));
    } else if (const auto hash = file_sha256(root / path); !hash.ok()) {
      out.problems.push_back(hash.error().message);
    } else if (*hash != file.value("sha256", std::string())) {
      out.problems.push_back(fmt::format("{}: its SHA-256 is {}, the manifest says {}", quote(path),
                                         *hash, file.value("sha256", std::string())));
    }
  }
  for (const ComponentReport& component : model.components) {
    for (const FileReport& file : component.files) {
      if (!files->contains(file.path))
        out.problems.push_back(fmt::format("{}: is not in the manifest", quote(file.path)));
    }
  }
}

}  // namespace

Result<Verification> verify(const fs::path& model) {
  const auto inspection = inspect(model, {.hashes = false, .values = true});
  if (!inspection.ok()) return inspection.error();
  Verification out;
  out.problems = inspection->problems;
  for (const ComponentReport& component : inspection->components) out.tensors += component.tensors;
  std::error_code error;
  out.has_manifest = fs::exists(model / kManifestName, error);
  if (!out.has_manifest) return out;
  try {
    compare(model, *inspection, out);
  } catch (const Failure& failure) {
    out.problems.push_back(failure.error().message);
  } catch (const nlohmann::json::exception&) {
    out.problems.push_back(fmt::format("{}: holds a value of the wrong kind", kManifestName));
  }
  return out;
}

}  // namespace limner::engine::weights
