// The sigmas of the samplers that see sample = clean + sigma * noise.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/samplers/sampler.h"
#include "engine/samplers/settings.h"
#include "engine/samplers/sigma_curves.h"

namespace limner::engine::samplers {

struct ExplodingSchedule {
  std::vector<double> timesteps;  // one per step
  std::vector<double> sigmas;     // one per step, without the final one; float64 as numpy has them
};

// Spacing, then the settings' curve between that spacing's largest and smallest sigma.
ExplodingSchedule exploding_schedule(const Settings& settings, const NoiseSchedule& noise,
                                     int steps);

// What the first noise is multiplied by: the largest sigma, or with leading spacing (whose first
// timestep is not the last of training) the deviation of a noised picture of variance 1.
double exploding_init_sigma(const Settings& settings, const std::vector<double>& sigmas);

// An ancestral step from one sigma to the next: the ODE goes down to `down`, fresh noise of `up`
// brings it back to the sigma asked for. In float32, as the values that pictures are compared with:
// down^2 is a difference of near equals.
struct AncestralStep {
  double up = 0.0;
  double down = 0.0;
};
AncestralStep ancestral_step(double from, double to);

// sample / sqrt(sigma^2 + 1)
at::Tensor exploding_model_input(const at::Tensor& sample, double sigma);

}  // namespace limner::engine::samplers
