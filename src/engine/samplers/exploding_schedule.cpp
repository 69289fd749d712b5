#include "engine/samplers/exploding_schedule.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace limner::engine::samplers {

ExplodingSchedule exploding_schedule(const Settings& settings, const NoiseSchedule& noise,
                                     int steps) {
  ExplodingSchedule result;
  result.timesteps = falling_timesteps(settings, steps, /*whole=*/false);
  result.sigmas = interpolate_sigmas(noise, result.timesteps);
  if (settings.curve == Curve::kPlain) return result;
  result.sigmas = curve_sigmas(settings.curve, settings.sigma_max.value_or(result.sigmas.front()),
                               settings.sigma_min.value_or(result.sigmas.back()), steps);
  result.timesteps = timesteps_of_sigmas(noise, result.sigmas);
  return result;
}

double exploding_init_sigma(const Settings& settings, const std::vector<double>& sigmas) {
  const double largest = *std::max_element(sigmas.begin(), sigmas.end());
  if (settings.spacing != Spacing::kLeading) return largest;
  return float_of(std::sqrt(largest * largest + 1.0));
}

AncestralStep ancestral_step(double from, double to) {
  const auto wide = static_cast<float>(from);
  const auto narrow = static_cast<float>(to);
  const float from_square = wide * wide;
  const float to_square = narrow * narrow;
  const float up = std::sqrt(to_square * (from_square - to_square) / from_square);
  const float down = std::sqrt(to_square - up * up);
  return {static_cast<double>(up), static_cast<double>(down)};
}

at::Tensor exploding_model_input(const at::Tensor& sample, double sigma) {
  return sample / std::sqrt(sigma * sigma + 1.0);
}

}  // namespace limner::engine::samplers
