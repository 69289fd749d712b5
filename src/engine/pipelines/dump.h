// The tensors of traced pictures as one safetensors file, for comparison with diffusers
// (tools/parity).
#pragma once

#include <filesystem>
#include <span>

#include "engine/pipelines/picture_state.h"

namespace limner::engine::pipelines {

// Pictures must be finished and traced, and share size and number of steps. Float32, stacked along
// the first axis.
Result<void> write_dump(const Pipeline& pipeline, std::span<const PictureState* const> pictures,
                        const std::filesystem::path& file);

}  // namespace limner::engine::pipelines
