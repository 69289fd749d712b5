#include "engine/samplers/training_timesteps.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"

namespace limner::engine::samplers {

void check_training_timesteps(const Settings& settings, const std::vector<double>& timesteps) {
  for (const double t : timesteps) {
    if (t >= 0.0 && t < settings.num_train_timesteps) continue;
    throw Failure(ErrorCode::kInvalidArgument,
                  "[sampler] want timesteps from 0 to " +
                      std::to_string(settings.num_train_timesteps - 1) + ", got " +
                      std::to_string(static_cast<long long>(t)) +
                      "; use fewer steps or another spacing");
  }
}

std::vector<double> explicit_training_timesteps(const Settings& settings,
                                                const SamplerRequest& request) {
  std::vector<double> timesteps = request.timesteps;
  for (double& t : timesteps) t = std::trunc(t);
  check_training_timesteps(settings, timesteps);
  for (std::size_t i = 1; i < timesteps.size(); ++i) {
    if (timesteps[i] < timesteps[i - 1]) continue;
    throw Failure(ErrorCode::kInvalidArgument, "[sampler] want explicit timesteps that fall");
  }
  return timesteps;
}

at::Tensor noised(const at::Tensor& sample, const at::Tensor& noise, double alpha) {
  return sample * std::sqrt(alpha) + noise * std::sqrt(1.0 - alpha);
}

std::vector<double> distilled_timesteps(const Settings& settings, const SamplerRequest& request) {
  if (!request.timesteps.empty()) return explicit_training_timesteps(settings, request);
  const int origin = settings.original_inference_steps;
  if (origin > settings.num_train_timesteps) {
    throw Failure(ErrorCode::kInvalidModel,
                  "[sampler] want original_inference_steps of at most num_train_timesteps, got " +
                      std::to_string(origin));
  }
  if (request.steps > origin) {
    throw Failure(ErrorCode::kInvalidArgument, "[sampler] this distilled sampler takes 1 to " +
                                                   std::to_string(origin) + " steps, got " +
                                                   std::to_string(request.steps));
  }
  const int stride = settings.num_train_timesteps / origin;
  std::vector<double> timesteps;
  const double jump = static_cast<double>(origin) / request.steps;
  for (int i = 0; i < request.steps; ++i) {
    const int index = static_cast<int>(std::floor(i * jump));
    timesteps.push_back((origin - index) * stride - 1);
  }
  return timesteps;
}

}  // namespace limner::engine::samplers
