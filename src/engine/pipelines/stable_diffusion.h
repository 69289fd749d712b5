// Stable Diffusion 1.x and 2.x: one CLIP text encoder, its last hidden state as the prompt.
#pragma once

#include "engine/pipelines/pipeline.h"

namespace limner::engine::pipelines {

Traits stable_diffusion_traits(const weights::ModelFolder& folder);
std::unique_ptr<const Pipeline> load_stable_diffusion(const LoadRequest& request);

}  // namespace limner::engine::pipelines
