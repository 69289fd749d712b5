#include "engine/samplers/sigma_curves.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/error.h"

namespace limner::engine::samplers {
namespace {

// first, first - step, ... above 0, with numpy's rounding: the difference of the first two values
// is what is added.
std::vector<double> count_down(double first, double step) {
  const auto count = static_cast<std::size_t>(std::ceil(first / step));
  const double second = first - step;
  const double difference = second - first;
  std::vector<double> values;
  for (std::size_t i = 0; i < count; ++i) {
    values.push_back(first + static_cast<double>(i) * difference);
  }
  return values;
}

// Trailing: whole timesteps, the first one the last of training.
std::vector<double> trailing(int from, double ratio) {
  std::vector<double> values = count_down(from, ratio);
  for (double& value : values) value = std::nearbyint(value) - 1.0;
  return values;
}

// P(X <= x) for X ~ Beta(a, a) and x <= 1/2, by the power series of the incomplete beta function,
// times `complete` = B(a, a).
double lower_beta_mass(double x, double a) {
  double power = 1.0;  // (1-a)_n / n! * x^n
  double sum = 0.0;
  for (int n = 0; n < 200; ++n) {
    const double term = power / (a + n);
    sum += term;
    if (term < 1e-18 * sum) break;
    power *= (1.0 - a + n) / (n + 1.0) * x;
  }
  return std::pow(x, a) * sum;
}

}  // namespace

double float_of(double value) {
  return static_cast<double>(static_cast<float>(value));
}

void round_to_float(std::vector<double>& values) {
  for (double& value : values) value = float_of(value);
}

std::vector<double> linspace(double first, double last, int count) {
  std::vector<double> values;
  const double step = count > 1 ? (last - first) / (count - 1) : 0.0;
  for (int i = 0; i < count; ++i) values.push_back(first + i * step);
  if (count > 1) values.back() = last;
  return values;
}

std::vector<double> falling_timesteps(const Settings& settings, int steps, bool whole) {
  const int total = settings.num_train_timesteps;
  std::vector<double> values;
  switch (settings.spacing) {
    case Spacing::kLinspace:
      values = linspace(0.0, total - 1, steps);
      std::reverse(values.begin(), values.end());
      for (double& value : values) value = whole ? std::nearbyint(value) : float_of(value);
      return values;
    case Spacing::kLeading:
      for (int i = steps - 1; i >= 0; --i) {
        values.push_back(static_cast<double>(i) * (total / steps) + settings.steps_offset);
      }
      return values;
    case Spacing::kTrailing:
      return trailing(total, static_cast<double>(total) / steps);
  }
  return values;
}

std::vector<double> solver_timesteps(const Settings& settings, int steps, int last_timestep) {
  std::vector<double> values;
  switch (settings.spacing) {
    case Spacing::kLinspace:
      values = linspace(0.0, last_timestep - 1, steps + 1);
      std::reverse(values.begin(), values.end());
      values.pop_back();
      for (double& value : values) value = std::nearbyint(value);
      return values;
    case Spacing::kLeading:
      for (int i = steps; i >= 1; --i) {
        values.push_back(static_cast<double>(i) * (last_timestep / (steps + 1)) +
                         settings.steps_offset);
      }
      return values;
    case Spacing::kTrailing:
      return trailing(last_timestep, static_cast<double>(settings.num_train_timesteps) / steps);
  }
  return values;
}

int last_unclipped_timestep(const NoiseSchedule& schedule, double lambda_min_clipped) {
  // lambda = -log sigma falls with the timestep.
  const auto clipped =
      std::count_if(schedule.log_sigmas.begin(), schedule.log_sigmas.end(),
                    [&](double log_sigma) { return -log_sigma < lambda_min_clipped; });
  return static_cast<int>(schedule.log_sigmas.size() - static_cast<std::size_t>(clipped));
}

std::vector<double> interpolate_sigmas(const NoiseSchedule& schedule,
                                       const std::vector<double>& timesteps) {
  const std::vector<double>& table = schedule.sigmas;
  std::vector<double> sigmas;
  for (const double t : timesteps) {
    const double last = static_cast<double>(table.size() - 1);
    if (t <= 0.0) {
      sigmas.push_back(table.front());
    } else if (t >= last) {
      sigmas.push_back(table.back());
    } else {
      const auto low = static_cast<std::size_t>(t);
      sigmas.push_back((table[low + 1] - table[low]) * (t - static_cast<double>(low)) + table[low]);
    }
  }
  return sigmas;
}

double timestep_of_sigma(const NoiseSchedule& schedule, double sigma) {
  const std::vector<double>& table = schedule.log_sigmas;
  if (table.size() < 2) return 0.0;
  const double log_sigma = std::log(std::max(sigma, 1e-10));
  const auto above = std::upper_bound(table.begin(), table.end(), log_sigma) - table.begin();
  const auto low = static_cast<std::size_t>(
      std::clamp<std::ptrdiff_t>(above - 1, 0, static_cast<std::ptrdiff_t>(table.size()) - 2));
  const double weight =
      std::clamp((table[low] - log_sigma) / (table[low] - table[low + 1]), 0.0, 1.0);
  return (1.0 - weight) * static_cast<double>(low) + weight * static_cast<double>(low + 1);
}

std::vector<double> timesteps_of_sigmas(const NoiseSchedule& schedule,
                                        const std::vector<double>& sigmas) {
  std::vector<double> timesteps;
  for (const double sigma : sigmas) timesteps.push_back(timestep_of_sigma(schedule, sigma));
  return timesteps;
}

double symmetric_beta_quantile(double p, double a) {
  if (p > 0.5) return 1.0 - symmetric_beta_quantile(1.0 - p, a);
  if (p <= 0.0) return 0.0;
  const double wanted = p * 2.0 * lower_beta_mass(0.5, a);
  // x^a / a bounds the mass from below for a <= 1, so the root lies below this.
  double low = 0.0;
  double high = std::min(0.5, std::pow(wanted * a, 1.0 / a));
  for (int i = 0; i < 200 && high - low > 1e-16 * high; ++i) {
    const double middle = 0.5 * (low + high);
    (lower_beta_mass(middle, a) < wanted ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

std::vector<double> curve_sigmas(Curve curve, double largest, double smallest, int steps) {
  if (!(smallest > 0.0 && largest >= smallest && std::isfinite(largest))) {
    throw Failure(ErrorCode::kInvalidArgument,
                  "[sampler] this schedule wants 0 < sigma_min <= sigma_max, got " +
                      std::to_string(smallest) + " and " + std::to_string(largest) +
                      "; use more steps or schedule 'default'");
  }
  std::vector<double> ramp = linspace(0.0, 1.0, steps);
  switch (curve) {
    case Curve::kKarras: {
      constexpr double kRho = 7.0;
      const double from = std::pow(largest, 1.0 / kRho);
      const double to = std::pow(smallest, 1.0 / kRho);
      for (double& x : ramp) x = std::pow(from + x * (to - from), kRho);
      return ramp;
    }
    case Curve::kExponential:
    case Curve::kLu: {
      ramp = linspace(std::log(largest), std::log(smallest), steps);
      for (double& x : ramp) x = std::exp(x);
      return ramp;
    }
    case Curve::kBeta:
      for (double& x : ramp) {
        x = smallest + symmetric_beta_quantile(1.0 - x, 0.6) * (largest - smallest);
      }
      return ramp;
    case Curve::kPlain:
    case Curve::kFlow:
      break;
  }
  LIMNER_CHECK(false, "not a curve between two sigmas");
}

void stretch_to_terminal(std::vector<double>& sigmas, double terminal) {
  const double factor = (1.0 - sigmas.back()) / (1.0 - terminal);
  if (factor <= 0.0) return;  // a single step from pure noise has nothing to stretch
  for (double& sigma : sigmas) sigma = 1.0 - (1.0 - sigma) / factor;
}

double shift_flow_sigma(double shift, double sigma) {
  return shift * sigma / (1.0 + (shift - 1.0) * sigma);
}

double dynamic_mu(const Settings& settings, std::int64_t tokens) {
  if (tokens <= 0) {
    throw Failure(
        ErrorCode::kInvalidArgument,
        "[sampler] a model with use_dynamic_shifting wants the number of image tokens, got " +
            std::to_string(tokens));
  }
  const double slope = (settings.max_shift - settings.base_shift) /
                       (settings.max_image_seq_len - settings.base_image_seq_len);
  return settings.base_shift + slope * (static_cast<double>(tokens) - settings.base_image_seq_len);
}

double flow_shift(const Settings& settings, std::int64_t tokens, double fallback) {
  if (!settings.use_dynamic_shifting) return fallback;
  const double mu = dynamic_mu(settings, tokens);
  return settings.time_shift_type == "linear" ? mu : std::exp(mu);
}

}  // namespace limner::engine::samplers
