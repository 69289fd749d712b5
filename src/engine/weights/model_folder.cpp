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
  throw Failure(ErrorCode::kInvalidModel,
                where +
                    ": is a single file, want a diffusers model folder with a model_index.json "
                    "(`limner model convert` makes one of a checkpoint)");
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

// What model_index.json says.
void read_index(const json& index, const std::string& index_name, ModelFolder& folder) {
  if (!index.is_object())
    throw Failure(ErrorCode::kInvalidModel, index_name + ": want a JSON object");
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
  ModelFolder folder;
  folder.root = root;
  read_index(read_json(root / "model_index.json", index_name), index_name, folder);
  return folder;
}

}  // namespace

std::filesystem::path ModelFolder::config_file(const std::string& component) const {
  return root / component / "config.json";
}

bool ModelFolder::has_weights(const std::string& component) const {
  if (single_file) return single_file->components().contains(component);
  std::error_code ignored;
  return std::filesystem::exists(config_file(component), ignored);
}

Config ModelFolder::config(const std::string& component) const {
  if (!single_file) return Config::read(config_file(component));
  const std::string name = component + "/config.json";
  return {single_file->json(name), short_name(root) + ": " + name};
}

json ModelFolder::scheduler_config() const {
  json config = single_file ? single_file->json("scheduler/scheduler_config.json")
                            : Config::read(root / "scheduler" / "scheduler_config.json").object();
  if (!options.prediction.empty()) config["prediction_type"] = options.prediction;
  return config;
}

std::optional<Config> ModelFolder::recommendations() const {
  if (!single_file) {
    std::error_code ignored;
    const std::filesystem::path file = root / "limner.json";
    return std::filesystem::exists(file, ignored) ? std::optional(Config::read(file))
                                                  : std::nullopt;
  }
  if (!single_file->texts().contains("limner.json")) return std::nullopt;
  return Config(single_file->json("limner.json"), short_name(root) + ": limner.json");
}

Result<std::shared_ptr<const Weights>> ModelFolder::weights(const std::string& component,
                                                            std::string_view variant) const {
  if (!single_file) return Weights::open_component(root / component, variant);
  const auto found = single_file->components().find(component);
  if (found != single_file->components().end()) return found->second;
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: has no {}", short_name(root), quote(component))};
}

std::filesystem::path ModelFolder::tokenizer_folder(const std::string& component) const {
  if (single_file) return single_file->folder_of(component);
  std::error_code ignored;
  if (options.tokenizer.empty() || std::filesystem::is_directory(root / component, ignored))
    return root / component;
  const bool own = std::filesystem::is_directory(options.tokenizer / component, ignored);
  return own ? options.tokenizer / component : options.tokenizer;
}

Result<ModelFolder> read_model(const std::filesystem::path& path,
                               const SingleFileOptions& options) {
  try {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) {
      if (options.ema)
        throw Failure(ErrorCode::kInvalidArgument,
                      quote(path.string()) + ": only single files hold averaged weights (--ema)");
      ModelFolder folder = read(path);
      folder.options = options;
      return folder;
    }
    ModelFolder folder;
    folder.root = path;
    folder.single_file = SingleFile::open(path, options);
    read_index(folder.single_file->json("model_index.json"), short_name(path), folder);
    return folder;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<ModelFolder> read_model_folder(const std::filesystem::path& folder) {
  try {
    return read(folder);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::engine::weights
