// The options of `limner model merge`.
#pragma once

#include <CLI/CLI.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/weights/dtype.h"

namespace limner::cli {

struct MergeOptions {
  std::vector<std::string> places;  // [MODEL] OUT
  std::vector<std::string> loras;   // FILE:SCALE, in order
  bool lora_allow_partial = false;
  std::vector<std::string> blend;       // MODEL=WEIGHT
  std::vector<std::string> difference;  // A B C: A + alpha (B - C)
  double alpha = 1.0;
  std::optional<engine::weights::DType> dtype;
  std::string variant;
  std::string tokenizer;
  std::string prediction;
};

}  // namespace limner::cli
