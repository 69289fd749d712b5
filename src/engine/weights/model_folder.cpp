#include "engine/weights/model_folder.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "base/suggest.h"
#include "engine/weights/file_kind.h"
#include "engine/weights/json.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

using nlohmann::json;

// Names beside `path`, for "did you mean": at most a thousand, because a folder may hold anything.
std::vector<std::string> siblings(const std::filesystem::path& path) {
  std::vector<std::string> names;
  std::error_code error;
  const auto parent = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  for (std::filesystem::directory_iterator entry(parent, error), end;
       !error && entry != end && names.size() < 1000; entry.increment(error)) {
    if (std::error_code ignored; entry->is_directory(ignored))
      names.push_back(entry->path().filename().string());
  }
  return names;
}

void check_is_folder(const std::filesystem::path& given) {
  const std::filesystem::path path =
      given.has_filename() ? given : given.parent_path();  // no '/' at the end
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  const std::string where = quote(path.string());
  if (status.type() == std::filesystem::file_type::not_found) {
    const std::string name = path.filename().string();
    throw Failure(ErrorCode::kNotFound, fmt::format("{}: no such model folder{}", where,
                                                    did_you_mean(name, siblings(path))));
  }
  if (error)
    throw Failure(ErrorCode::kIo, fmt::format("{}: cannot be read ({})", where, error.message()));
  if (std::filesystem::is_directory(status)) return;
  if (has_pickle_extension(path)) throw Failure(pickle_refusal(where));
  throw Failure(
      ErrorCode::kInvalidModel,
      where +
          ": is a single file, want a diffusers model folder with a model_index.json (diffusers' "
          "from_single_file and save_pretrained make one of a single-file checkpoint)");
}

// A component becomes a path below the root, so its name must be a plain one.
void check_component_name(const std::string& name, const std::string& where) {
  if (name.empty() || name.size() > 128 || name[0] == '.' ||
      name.find_first_of(std::string("/\\\0", 3)) != std::string::npos) {
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: {} cannot be the name of a component", where, quote(name)));
  }
}

std::string optional_text(const json& index, const char* key, const std::string& where) {
  const auto found = index.find(key);
  if (found == index.end() || found->is_null()) return "";
  if (!found->is_string())
    throw Failure(ErrorCode::kInvalidModel, fmt::format("{}: '{}' wants text", where, key));
  return found->get<std::string>();
}

ModelFolder read(const std::filesystem::path& root) {
  check_is_folder(root);
  const std::string where = quote(root.string());
  std::error_code error;
  if (!std::filesystem::exists(root / "model_index.json", error)) {
    const bool component = std::filesystem::exists(root / "config.json", error);
    throw Failure(
        ErrorCode::kInvalidModel,
        fmt::format("{}: has no model_index.json, so it is not a diffusers model folder{}", where,
                    component ? " (its config.json makes it look like one component of one)" : ""));
  }
  const std::string index_name = short_name(root / "model_index.json");
  const json index = read_json(root / "model_index.json", index_name);
  if (!index.is_object())
    throw Failure(ErrorCode::kInvalidModel, index_name + ": want a JSON object");
  ModelFolder folder;
  folder.root = root;
  folder.pipeline_class = optional_text(index, "_class_name", index_name);
  folder.diffusers_version = optional_text(index, "_diffusers_version", index_name);
  if (folder.pipeline_class.empty()) {
    throw Failure(ErrorCode::kInvalidModel,
                  index_name + ": has no '_class_name', which says what kind of model it is");
  }
  for (const auto& [key, value] : index.items()) {
    if (key.starts_with('_')) continue;
    if (value.is_boolean()) folder.flags[key] = value.get<bool>();
    // Some options of pipelines are numbers, texts or null; only pairs name components.
    if (!value.is_array() || value.size() != 2 || !value[0].is_string() || !value[1].is_string())
      continue;
    check_component_name(key, index_name);
    folder.components[key] = {value[0].get<std::string>(), value[1].get<std::string>()};
  }
  return folder;
}

}  // namespace

std::filesystem::path ModelFolder::config_file(const std::string& component) const {
  return root / component / "config.json";
}

Result<ModelFolder> read_model_folder(const std::filesystem::path& folder) {
  try {
    return read(folder);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::engine::weights
