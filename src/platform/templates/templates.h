// templates.json: named presets of a checkpoint, adapters merged into it, and defaults. The schema
// is docs/templates.schema.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::platform {

struct TemplateCheckpoint {
  std::string name;
  std::string url;            // "": the file is brought by other means
  std::string filename;       // in the folder of downloads
  std::string diffusers_dir;  // in the folder of models
  std::string sha256;         // of the file; "" when not known
  std::string prediction;     // epsilon, v_prediction; "": what the file says
  bool operator==(const TemplateCheckpoint&) const = default;
};

struct TemplateLora {
  std::string name;
  std::string url;
  std::string filename;
  std::string sha256;
  double scale = 1.0;
  bool operator==(const TemplateLora&) const = default;
};

// What a request gets where it does not say otherwise.
struct TemplateDefaults {
  std::optional<std::int64_t> steps, width, height;
  std::optional<double> guidance_scale;
  std::string sampler, schedule;  // "": the model's own
  std::string prompt_prefix;      // put before the prompt, with ", " between
  std::string negative_prompt;
};

struct Template {
  std::string key;  // letters, digits and ._- : it becomes part of a folder's name
  std::string name, description;
  TemplateCheckpoint checkpoint;
  std::vector<TemplateLora> loras;  // merged in this order
  TemplateDefaults defaults;

  // The folder of the built model: the checkpoint's own when there is nothing to merge.
  std::string model_dir() const {
    return loras.empty() ? checkpoint.diffusers_dir : key + "-merged-df";
  }
};

struct Templates {
  std::filesystem::path file;
  std::map<std::string, Template> by_key;
  std::string default_template;

  // `key`, or the default template for "". kNotFound with near names.
  Result<Template> find(const std::string& key) const;
  // Each once, by filename, in order of the templates' keys.
  std::vector<TemplateCheckpoint> unique_checkpoints() const;
  std::vector<TemplateLora> unique_loras() const;  // scale is of no meaning here
};

// Fails with kInvalidArgument naming the file, and for every mistake (ten at most) its line and
// field: unknown fields, missing ones, wrong kinds, names that would leave their folder, one file
// name for two URLs, a default template that there is not.
Result<Templates> parse_templates(std::string_view text, const std::filesystem::path& file);
// The same for a file; kNotFound and kIo when it cannot be read.
Result<Templates> read_templates(const std::filesystem::path& file);

}  // namespace limner::platform
