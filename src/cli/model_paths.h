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

// Every model found there: folders with a model_index.json, and single *.safetensors files.
std::vector<std::filesystem::path> find_models(const std::vector<std::filesystem::path>& folders);

// What a model is called by: the folder's name, or the file's without its ending.
std::string model_name(const std::filesystem::path& model);

// `tokenizer` when it is not empty, else the first clip-tokenizer/ there, else "".
std::filesystem::path resolve_tokenizer(const std::string& tokenizer,
                                        const std::vector<std::filesystem::path>& folders);

// A path if `model` names something on the disk, else the model of that name. kNotFound with near
// names.
Result<std::filesystem::path> resolve_model(const std::string& model,
                                            const std::vector<std::filesystem::path>& folders);

}  // namespace limner::cli
