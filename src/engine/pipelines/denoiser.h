// Denoiser: one model call for many pictures, then each one's own sampler.
#pragma once

#include <span>

#include "engine/pipelines/picture_state.h"

namespace limner::engine::pipelines {

// A picture adds one row, or two when it is guided (classifier-free guidance, Ho & Salimans 2022).
// Rows may differ in timestep, sampler, guidance and seed; they agree in latent shape. Throws
// Failure.
void step(const Pipeline& pipeline, std::span<PictureState* const> pictures);

// Guidance is off at scales up to 1, as in diffusers, and where the network embeds it.
bool is_guided(const Pipeline& pipeline, const PictureState& picture);

}  // namespace limner::engine::pipelines
