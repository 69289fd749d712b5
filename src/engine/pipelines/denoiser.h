// Denoiser: one model call for many pictures, then each one's own sampler.
#pragma once

#include <span>

#include "engine/pipelines/batch_adapters.h"
#include "engine/pipelines/picture_state.h"

namespace limner::engine::pipelines {

// A picture adds one row, or when it is guided (classifier-free guidance, Ho & Salimans 2022) one
// for the negative prompt and one for each side of an AND. Rows may differ in timestep, sampler,
// guidance, seed, adapters and length of prompt (each length is a forward of its own); they agree
// in latent shape. Throws Failure.
void step(const Pipeline& pipeline, BatchAdapters& adapters,
          std::span<PictureState* const> pictures);

// Guidance is off at scales up to 1, as in diffusers, and where the network embeds it; but AND
// always guides, at a scale of 1 or more. kUnsupported for AND where the network embeds guidance.
bool is_guided(const Pipeline& pipeline, const PictureState& picture);

// At most, in one step.
std::int64_t rows_of(const Pipeline& pipeline, const PictureState& picture);

}  // namespace limner::engine::pipelines
