// Helpers of the samplers that look alpha up by whole training timestep (ddim, ddpm, pndm, lcm,
// tcd).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/samplers/noise_schedule.h"
#include "engine/samplers/sampler.h"

namespace limner::engine::samplers {

// Failure(kInvalidArgument) when a timestep lies outside 0 .. num_train_timesteps - 1, which
// leading spacing with an offset can make at a step count near num_train_timesteps.
void check_training_timesteps(const Settings& settings, const std::vector<double>& timesteps);

// The request's explicit timesteps: whole, falling, within the training schedule; else Failure.
std::vector<double> explicit_training_timesteps(const Settings& settings,
                                                const SamplerRequest& request);

// sqrt(alpha) * sample + sqrt(1 - alpha) * noise
at::Tensor noised(const at::Tensor& sample, const at::Tensor& noise, double alpha);

// The distillation schedule of consistency models: `steps` of the `original_inference_steps`
// timesteps the student was trained on, from the last. Failure(kInvalidArgument) for more steps
// than those.
std::vector<double> distilled_timesteps(const Settings& settings, const SamplerRequest& request);

}  // namespace limner::engine::samplers
