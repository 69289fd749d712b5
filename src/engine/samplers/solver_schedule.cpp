#include "engine/samplers/solver_schedule.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/samplers/prediction.h"
#include "engine/samplers/training_timesteps.h"

namespace limner::engine::samplers {
namespace {

// Flow sigmas of the solvers: the first is just below 1, where alpha would be 0.
std::vector<double> solver_flow_sigmas(const Settings& settings, const SamplerRequest& request) {
  const double shift = flow_shift(settings, request.image_tokens, settings.flow_shift);
  std::vector<double> sigmas = linspace(1.0, 1.0 / settings.num_train_timesteps, request.steps + 1);
  for (double& sigma : sigmas) sigma = shift_flow_sigma(shift, 1.0 - sigma);
  std::reverse(sigmas.begin(), sigmas.end());
  sigmas.pop_back();
  return sigmas;
}

void curve_schedule(const Settings& settings, const NoiseSchedule& noise, int steps,
                    bool whole_timesteps, SolverSchedule& schedule) {
  schedule.sigmas = curve_sigmas(settings.curve, settings.sigma_max.value_or(noise.sigmas.back()),
                                 settings.sigma_min.value_or(noise.sigmas.front()), steps);
  schedule.timesteps = timesteps_of_sigmas(noise, schedule.sigmas);
  const bool rounds = settings.curve == Curve::kKarras || settings.curve == Curve::kLu;
  if (!rounds || !whole_timesteps) return;
  for (double& t : schedule.timesteps) t = std::nearbyint(t);
}

}  // namespace

void check_falling(const std::vector<double>& sigmas) {
  for (std::size_t i = 1; i < sigmas.size(); ++i) {
    // The last pair may be equal: some schedules end by repeating the smallest sigma.
    const bool last = i + 1 == sigmas.size();
    if (sigmas[i] < sigmas[i - 1] || (last && sigmas[i] == sigmas[i - 1])) continue;
    throw Failure(ErrorCode::kInvalidArgument,
                  "[sampler] want sigmas that fall at every step, got " +
                      std::to_string(sigmas[i - 1]) + " then " + std::to_string(sigmas[i]) +
                      " at step " + std::to_string(i) + "; use fewer steps or another schedule");
  }
}

SolverSchedule solver_schedule(const Settings& settings, const NoiseSchedule& noise,
                               const SamplerRequest& request,
                               const SolverScheduleOptions& options) {
  SolverSchedule schedule;
  if (!request.timesteps.empty()) {
    schedule.timesteps = explicit_training_timesteps(settings, request);
    schedule.sigmas = interpolate_sigmas(noise, schedule.timesteps);
  } else if (settings.curve == Curve::kFlow) {
    schedule.sigmas = solver_flow_sigmas(settings, request);
    schedule.timesteps = schedule.sigmas;
    for (double& t : schedule.timesteps) t *= settings.num_train_timesteps;
  } else if (settings.curve == Curve::kPlain) {
    schedule.timesteps = solver_timesteps(
        settings, request.steps, last_unclipped_timestep(noise, settings.lambda_min_clipped));
    schedule.sigmas = interpolate_sigmas(noise, schedule.timesteps);
  } else {
    curve_schedule(settings, noise, request.steps, options.whole_curve_timesteps, schedule);
  }
  for (double& t : schedule.timesteps) t = std::trunc(t);
  const bool repeats = options.repeat_last_sigma && settings.curve != Curve::kPlain;
  const double smallest = repeats ? schedule.sigmas.back() : noise.sigmas.front();
  schedule.sigmas.push_back(settings.final_sigma_zero ? 0.0 : smallest);
  round_to_float(schedule.sigmas);
  check_falling(schedule.sigmas);
  return schedule;
}

SolverPoint solver_point(double sigma, bool flow) {
  SolverPoint point;
  point.alpha = flow ? 1.0 - sigma : 1.0 / std::sqrt(sigma * sigma + 1.0);
  point.sigma = flow ? sigma : sigma * point.alpha;
  point.lambda = std::log(point.alpha) - std::log(point.sigma);
  return point;
}

Algorithm solver_algorithm(const Settings& settings) {
  const std::string& type = settings.algorithm_type;
  if (type == "dpmsolver++" || type == "deis") return Algorithm::kDpmPlusPlus;
  if (type == "sde-dpmsolver++") return Algorithm::kSdeDpmPlusPlus;
  if (type != "dpmsolver" && type != "sde-dpmsolver") {
    throw Failure(ErrorCode::kInvalidModel,
                  "[sampler] want algorithm_type dpmsolver, dpmsolver++, sde-dpmsolver or "
                  "sde-dpmsolver++, got '" +
                      type + "'");
  }
  if (settings.final_sigma_zero) {
    throw Failure(ErrorCode::kInvalidModel, "[sampler] algorithm_type " + type +
                                                " wants final_sigmas_type 'sigma_min', got 'zero'");
  }
  return type == "dpmsolver" ? Algorithm::kDpm : Algorithm::kSdeDpm;
}

SolverCoefficients solver_coefficients(Algorithm algorithm, const SolverPoint& from,
                                       const SolverPoint& to) {
  const double h = to.lambda - from.lambda;
  SolverCoefficients c;
  switch (algorithm) {
    case Algorithm::kDpmPlusPlus: {
      const double grown = std::exp(-h) - 1.0;
      c.sample = to.sigma / from.sigma;
      c.d0 = -to.alpha * grown;
      c.d1_heun = to.alpha * (grown / h + 1.0);
      c.d2 = -to.alpha * ((grown + h) / (h * h) - 0.5);
      break;
    }
    case Algorithm::kDpm: {
      const double grown = std::exp(h) - 1.0;
      c.sample = to.alpha / from.alpha;
      c.d0 = -to.sigma * grown;
      c.d1_heun = -to.sigma * (grown / h - 1.0);
      c.d2 = -to.sigma * ((grown - h) / (h * h) - 0.5);
      break;
    }
    case Algorithm::kSdeDpmPlusPlus: {
      const double shrunk = 1.0 - std::exp(-2.0 * h);
      c.sample = to.sigma / from.sigma * std::exp(-h);
      c.d0 = to.alpha * shrunk;
      c.d1_heun = to.alpha * (shrunk / (-2.0 * h) + 1.0);
      c.d2 = to.alpha * ((shrunk - 2.0 * h) / (4.0 * h * h) - 0.5);
      c.noise = to.sigma * std::sqrt(shrunk);
      break;
    }
    case Algorithm::kSdeDpm: {
      const double grown = std::exp(h) - 1.0;
      c.sample = to.alpha / from.alpha;
      c.d0 = -2.0 * to.sigma * grown;
      c.d1_heun = -2.0 * to.sigma * (grown / h - 1.0);
      c.noise = to.sigma * std::sqrt(std::exp(2.0 * h) - 1.0);
      break;
    }
  }
  c.d1_midpoint = 0.5 * c.d0;
  return c;
}

at::Tensor solver_output(const Settings& settings, bool as_clean, const at::Tensor& model_output,
                         const at::Tensor& sample, const SolverPoint& at) {
  if (as_clean) {
    const at::Tensor clean =
        clean_of_preserving(settings.prediction, model_output, sample, at.alpha, at.sigma);
    return settings.thresholding ? threshold_clean(settings, clean) : clean;
  }
  const at::Tensor noise =
      noise_of_preserving(settings.prediction, model_output, sample, at.alpha, at.sigma);
  if (!settings.thresholding) return noise;
  const at::Tensor clean = threshold_clean(settings, (sample - noise * at.sigma) / at.alpha);
  return (sample - clean * at.alpha) / at.sigma;
}

}  // namespace limner::engine::samplers
