// DEIS: exponential integrator multistep in log rho, orders 1 to 3 (Zhang, Chen 2022).
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/solver_schedule.h"

namespace limner::engine::samplers {
namespace {

// Antiderivatives in t of the Lagrange basis polynomials in log t that are 1 at b and 0 at c (and
// d).
double basis_integral(double t, double b, double c) {
  return t * (std::log(t) - std::log(c) - 1.0) / (std::log(b) - std::log(c));
}

double basis_integral(double t, double b, double c, double d) {
  const double lt = std::log(t);
  const double lc = std::log(c);
  const double ld = std::log(d);
  const double numerator = t * (lc * (ld - lt + 1.0) - ld * lt + ld + lt * lt - 2.0 * lt + 2.0);
  return numerator / ((std::log(b) - lc) * (std::log(b) - ld));
}

// History: tensors are the noise estimates of the latest steps, newest last; the counter is the
// number of steps taken since the start, up to solver_order.
class Deis final : public Sampler {
 public:
  Deis(const Settings& settings, const SamplerRequest& request)
      : settings_(settings), flow_(settings.curve == Curve::kFlow) {
    const NoiseSchedule noise = make_noise_schedule(settings, /*finite_sigmas=*/false);
    SolverScheduleOptions options;
    options.repeat_last_sigma = true;
    SolverSchedule schedule = solver_schedule(settings, noise, request, options);
    timesteps_ = std::move(schedule.timesteps);
    sigmas_ = std::move(schedule.sigmas);
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    const SolverPoint at = solver_point(sigmas_.at(position), flow_);
    return sample * at.alpha + noise * at.sigma;
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample, Noise&) override {
    const std::size_t i = history_.position;
    const SolverPoint from = solver_point(sigmas_[i], flow_);
    const SolverPoint to = solver_point(sigmas_[i + 1], flow_);
    const at::Tensor clean =
        solver_output(settings_, /*as_clean=*/true, model_output, sample, from);
    remember((sample - clean * from.alpha) / from.sigma);
    const int order = order_at(i);
    history_.counter = std::min<std::int64_t>(history_.counter + 1, settings_.solver_order);
    if (order == 1) {
      return solver_coefficients(Algorithm::kDpm, from, to).sample * sample +
             output(0) * solver_coefficients(Algorithm::kDpm, from, to).d0;
    }
    const double t = rho(i + 1);
    const double r0 = rho(i);
    const double r1 = rho(i - 1);
    at::Tensor sum = sample / from.alpha;
    if (order == 2) {
      sum = sum + output(0) * (basis_integral(t, r0, r1) - basis_integral(r0, r0, r1)) +
            output(1) * (basis_integral(t, r1, r0) - basis_integral(r0, r1, r0));
    } else {
      const double r2 = rho(i - 2);
      sum = sum + output(0) * (basis_integral(t, r0, r1, r2) - basis_integral(r0, r0, r1, r2)) +
            output(1) * (basis_integral(t, r1, r2, r0) - basis_integral(r0, r1, r2, r0)) +
            output(2) * (basis_integral(t, r2, r0, r1) - basis_integral(r0, r2, r0, r1));
    }
    return sum * to.alpha;
  }

 private:
  void remember(at::Tensor output) {
    history_.tensors.push_back(std::move(output));
    if (history_.tensors.size() > static_cast<std::size_t>(settings_.solver_order)) {
      history_.tensors.erase(history_.tensors.begin());
    }
  }

  const at::Tensor& output(std::size_t age) const {
    return history_.tensors.at(history_.tensors.size() - 1 - age);
  }

  double rho(std::size_t i) const {
    const SolverPoint at = solver_point(sigmas_[i], flow_);
    return at.sigma / at.alpha;
  }

  int order_at(std::size_t i) const {
    const std::size_t count = timesteps_.size();
    const bool short_run = settings_.lower_order_final && count < 15;
    if (settings_.solver_order == 1 || history_.counter < 1 || (short_run && i + 1 == count)) {
      return 1;
    }
    if (settings_.solver_order == 2 || history_.counter < 2 || (short_run && i + 2 == count)) {
      return 2;
    }
    return 3;
  }

  const Settings settings_;
  const bool flow_;
};

}  // namespace

SamplerPtr make_deis(const Settings& settings, const SamplerRequest& request) {
  if (settings.algorithm_type != "deis" && settings.algorithm_type != "dpmsolver" &&
      settings.algorithm_type != "dpmsolver++") {
    throw Failure(ErrorCode::kInvalidModel,
                  "[sampler] deis wants algorithm_type deis, dpmsolver or dpmsolver++, got '" +
                      settings.algorithm_type + "'");
  }
  Settings plain = settings;
  plain.final_sigma_zero = false;  // log rho has no zero
  return std::make_unique<Deis>(plain, request);
}

}  // namespace limner::engine::samplers
