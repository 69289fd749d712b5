// A diffusers model folder: model_index.json and its component folders.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "base/error.h"

namespace limner::engine::weights {

struct ComponentEntry {
  std::string library;     // "diffusers", "transformers"
  std::string class_name;  // "UNet2DConditionModel"
};

struct ModelFolder {
  std::filesystem::path root;
  std::string pipeline_class;     // "StableDiffusionXLPipeline"
  std::string diffusers_version;  // may be empty
  std::map<std::string, ComponentEntry>
      components;                     // those present ([null, null] entries are left out)
  std::map<std::string, bool> flags;  // booleans, e.g. force_zeros_for_empty_prompt

  bool has(const std::string& component) const { return components.count(component) != 0; }
  std::filesystem::path config_file(
      const std::string& component) const;  // <root>/<component>/config.json
};

// Fails with kNotFound (no such folder, with near sibling names), kInvalidModel (no or broken
// model_index.json; the sentence for a single file or pickle says what to do).
Result<ModelFolder> read_model_folder(const std::filesystem::path& folder);

}  // namespace limner::engine::weights
