// Where models are looked for by name.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"

namespace limner::cli {

// In order: $LIMNER_MODELS (folders separated by ':'), ./models, models/ beside the program or
// above its build folder, share/limner/models of an installation. Only those that exist.
std::vector<std::filesystem::path> model_folders();

// Every model found there: folders with a model_index.json.
std::vector<std::filesystem::path> find_models(const std::vector<std::filesystem::path>& folders);

// A path if `model` names something on the disk, else the model of that name. kNotFound with near
// names.
Result<std::filesystem::path> resolve_model(const std::string& model,
                                            const std::vector<std::filesystem::path>& folders);

}  // namespace limner::cli
