// Lists of timesteps and of sigmas: the arithmetic that all samplers share.
#pragma once

#include <vector>

#include "engine/samplers/noise_schedule.h"
#include "engine/samplers/settings.h"

namespace limner::engine::samplers {

double float_of(double value);  // rounded to float32

// `count` values from first to last, both included; one value is `first`.
std::vector<double> linspace(double first, double last, int count);

// Falling timesteps of `steps` steps, Table 2 of "Common Diffusion Noise Schedules and Sample Steps
// are Flawed". `whole`: linspace values are rounded to whole timesteps (half to even).
std::vector<double> falling_timesteps(const Settings& settings, int steps, bool whole);

// The variant of the exponential solvers: one interval more, whose end is dropped, over the first
// `last_timestep` training timesteps.
std::vector<double> solver_timesteps(const Settings& settings, int steps, int last_timestep);

// The number of training timesteps whose half log-SNR is above `lambda_min_clipped`.
int last_unclipped_timestep(const NoiseSchedule& schedule, double lambda_min_clipped);

// Sigmas of the training schedule at (fractional) timesteps.
std::vector<double> interpolate_sigmas(const NoiseSchedule& schedule,
                                       const std::vector<double>& timesteps);

// The (fractional) timestep that has this sigma; linear between log sigmas, clipped at both ends.
double timestep_of_sigma(const NoiseSchedule& schedule, double sigma);
std::vector<double> timesteps_of_sigmas(const NoiseSchedule& schedule,
                                        const std::vector<double>& sigmas);

// `steps` falling sigmas from `largest` to `smallest`:
// karras      Karras et al. 2022 eq. 5 with rho 7
// exponential evenly spaced logarithms
// beta        quantiles of the Beta(0.6, 0.6) distribution (Lee et al., "Beta Sampling is All You
// Need") lu          evenly spaced half log-SNR (Lu et al., DPM-Solver)
std::vector<double> curve_sigmas(Curve curve, double largest, double smallest, int steps);

// x with P(X <= x) = p for X ~ Beta(a, a), 0 <= p <= 1, 0 < a <= 1.
double symmetric_beta_quantile(double p, double a);

// 1 - sigma stretched so that the last sigma becomes `terminal`.
void stretch_to_terminal(std::vector<double>& sigmas, double terminal);

// shift * sigma / (1 + (shift - 1) * sigma): moves flow sigmas towards noise (Esser et al. 2024,
// eq. 23).
double shift_flow_sigma(double shift, double sigma);

// mu of models whose shift grows linearly with the number of latent tokens; the shift itself is
// e^mu, or mu with `time_shift_type` linear. Failure(kInvalidArgument) without a token count.
double dynamic_mu(const Settings& settings, std::int64_t tokens);

// The shift of a flow config: `fallback`, or with use_dynamic_shifting what the token count says.
double flow_shift(const Settings& settings, std::int64_t tokens, double fallback);

// Rounds each to float32.
void round_to_float(std::vector<double>& values);

}  // namespace limner::engine::samplers
