// A model as diffusers lays it out: model_index.json and its components, in a folder or seen
// through a single-file checkpoint.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "base/error.h"
#include "engine/weights/checkpoint/single_file.h"
#include "engine/weights/config.h"
#include "engine/weights/weights.h"

namespace limner::engine::weights {

struct ComponentEntry {
  std::string library;     // "diffusers", "transformers"
  std::string class_name;  // "UNet2DConditionModel"
};

// Immutable once read; safe to read from many threads.
struct ModelFolder {
  std::filesystem::path root;     // of a single file: the file
  std::string pipeline_class;     // "StableDiffusionXLPipeline"
  std::string diffusers_version;  // may be empty
  std::map<std::string, ComponentEntry>
      components;                     // those present ([null, null] entries are left out)
  std::map<std::string, bool> flags;  // booleans, e.g. force_zeros_for_empty_prompt

  std::shared_ptr<const SingleFile> single_file;  // null for a folder
  SingleFileOptions options;

  bool has(const std::string& component) const { return components.count(component) != 0; }
  std::filesystem::path config_file(
      const std::string& component) const;               // <root>/<component>/config.json
  bool has_weights(const std::string& component) const;  // a network, not a tokenizer or sampler

  // <component>/config.json. Throws Failure(kNotFound, kInvalidModel).
  Config config(const std::string& component) const;
  // scheduler/scheduler_config.json, with the prediction type that was asked for.
  nlohmann::json scheduler_config() const;
  // limner.json, which may carry the defaults that the model's maker recommends.
  std::optional<Config> recommendations() const;
  // See Weights::open_component; a single file has no variants.
  Result<std::shared_ptr<const Weights>> weights(const std::string& component,
                                                 std::string_view variant = {}) const;
  // Where the tokenizer `component` can be read. Throws Failure(kIo, kNotFound).
  std::filesystem::path tokenizer_folder(const std::string& component) const;
};

// Fails with kNotFound (no such folder, with near sibling names), kInvalidModel (no or broken
// model_index.json; the sentence for a single file or pickle says what to do).
Result<ModelFolder> read_model_folder(const std::filesystem::path& folder);

// A folder, or a single-file checkpoint. `options.ema` fits the latter alone (kInvalidArgument).
// Fails as read_model_folder and SingleFile::open do.
Result<ModelFolder> read_model(const std::filesystem::path& path,
                               const SingleFileOptions& options = {});

}  // namespace limner::engine::weights
