// Schedules and coefficients of the exponential solvers (DPM-Solver, UniPC, DEIS), which see
// sample = alpha * clean + sigma * noise.
#pragma once

#include <vector>

#include "engine/samplers/sampler.h"
#include "engine/samplers/settings.h"
#include "engine/samplers/sigma_curves.h"

namespace limner::engine::samplers {

struct SolverSchedule {
  std::vector<double> timesteps;  // whole
  std::vector<double> sigmas;  // alpha-free (sigma / alpha) or flow sigmas, one more than timesteps
};

struct SolverScheduleOptions {
  bool whole_curve_timesteps = true;  // karras and lu timesteps are rounded, not cut
  bool repeat_last_sigma = false;     // "sigma_min" is the last sigma of the curve, not of training
};

// From the request's explicit timesteps, or the settings' curve and spacing.
// Failure(kInvalidArgument) when two neighbouring sigmas are equal: a solver would divide by zero.
SolverSchedule solver_schedule(const Settings& settings, const NoiseSchedule& noise,
                               const SamplerRequest& request, const SolverScheduleOptions& options);

void check_falling(const std::vector<double>& sigmas);

struct SolverPoint {
  double alpha = 0.0;
  double sigma = 0.0;
  double lambda = 0.0;  // half log-SNR, log(alpha / sigma); infinite at sigma 0
};

SolverPoint solver_point(double sigma, bool flow);

enum class Algorithm { kDpm, kDpmPlusPlus, kSdeDpm, kSdeDpmPlusPlus };

// Of algorithm_type; "deis" counts as dpmsolver++. Failure(kInvalidModel) for other words, and for
// the noise-predicting kinds with a final sigma of zero, where they divide by it.
Algorithm solver_algorithm(const Settings& settings);

inline bool draws_noise(Algorithm a) {
  return a == Algorithm::kSdeDpm || a == Algorithm::kSdeDpmPlusPlus;
}
inline bool predicts_clean(Algorithm a) {
  return a == Algorithm::kDpmPlusPlus || a == Algorithm::kSdeDpmPlusPlus;
}

// next = sample * .sample + d0 * .d0 + d1 * (.d1_midpoint or .d1_heun) + d2 * .d2 + noise * .noise,
// where d0, d1, d2 are the solver's divided differences (Lu et al., DPM-Solver++, eq. 9 to 11; the
// SDE kinds, appendix B).
struct SolverCoefficients {
  double sample = 0.0;
  double d0 = 0.0;
  double d1_midpoint = 0.0;
  double d1_heun = 0.0;
  double d2 = 0.0;
  double noise = 0.0;
};

SolverCoefficients solver_coefficients(Algorithm algorithm, const SolverPoint& from,
                                       const SolverPoint& to);

// The model output as the algorithm stores it: the clean picture or the noise, thresholded if
// asked.
at::Tensor solver_output(const Settings& settings, bool as_clean, const at::Tensor& model_output,
                         const at::Tensor& sample, const SolverPoint& at);

}  // namespace limner::engine::samplers
