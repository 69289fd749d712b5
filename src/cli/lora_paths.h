// Where adapters and textual inversions are looked for by name.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "engine/lora/adapter_folders.h"

namespace limner::cli {

// In order: `given` (--loras), $LIMNER_LORAS (folders separated by ':'), loras/ inside `model`, and
// loras/ beside each folder that models are looked for in.
engine::lora::AdapterFolders lora_folders(const std::vector<std::string>& given,
                                          const std::filesystem::path& model = {});

// As lora_folders, for textual inversions: --embeddings, $LIMNER_EMBEDDINGS, embeddings/.
std::vector<std::filesystem::path> embedding_folders(const std::vector<std::string>& given,
                                                     const std::filesystem::path& model = {});

}  // namespace limner::cli
