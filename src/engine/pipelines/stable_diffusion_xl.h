// Stable Diffusion XL (Podell et al. 2023): two CLIP text encoders and micro-conditioning on sizes.
#pragma once

#include "engine/pipelines/pipeline.h"

namespace limner::engine::pipelines {

Traits stable_diffusion_xl_traits(const weights::ModelFolder& folder);
std::unique_ptr<const Pipeline> load_stable_diffusion_xl(const LoadRequest& request);

}  // namespace limner::engine::pipelines
