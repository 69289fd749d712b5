// NoiseSchedule: how much of the picture is left at each training timestep.
#pragma once

#include <vector>

#include "engine/samplers/settings.h"

namespace limner::engine::samplers {

// Values are computed in float32 as in training code and kept as doubles: at a low timestep
// 1 - alpha loses digits, and the difference is visible in the last steps of a picture.
struct NoiseSchedule {
  std::vector<double> alphas_cumprod;  // one per training timestep, falling
  std::vector<double> sigmas;          // sqrt((1 - alpha) / alpha), rising
  std::vector<double> log_sigmas;

  double alpha(std::int64_t timestep) const;  // alphas_cumprod; `timestep` must be in range
};

// `finite_sigmas`: with rescaled betas the last alpha is 0 and its sigma infinite; samplers that
// divide by it put 2^-24 in its place. Failure(kInvalidModel) for an unknown beta_schedule.
NoiseSchedule make_noise_schedule(const Settings& settings, bool finite_sigmas);

}  // namespace limner::engine::samplers
