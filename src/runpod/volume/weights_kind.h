// What a safetensors file is for, told by the names of its tensors and never by its own.
#pragma once

#include <filesystem>

#include "base/error.h"

namespace limner::runpod {

enum class WeightsKind {
  kCheckpoint,  // a whole model in one file, or its UNet
  kAdapter,     // LoRA and its kin
  kEmbedding,   // a textual inversion
  kOther,
};

// Reads the header alone, all of it checked. Errors as SafetensorsFile::open's: kInvalidModel for a
// file that is cut off or none.
Result<WeightsKind> weights_kind(const std::filesystem::path& file);

}  // namespace limner::runpod
