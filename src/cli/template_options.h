// Options of the commands that know templates.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "engine/weights/dtype.h"

namespace limner::cli {

struct TemplateBuildOptions {
  std::string file;
  std::filesystem::path out;
  std::filesystem::path volume;  // empty: none
  int jobs = 2;
  std::optional<engine::weights::DType> dtype = engine::weights::DType::kF16;
  std::string variant = "fp16";
  std::string tokenizer;
  bool report = true;  // what became of each model, on stdout
};

}  // namespace limner::cli
