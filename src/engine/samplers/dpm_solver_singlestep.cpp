// DPM-Solver and DPM-Solver++, singlestep: groups of one to three model calls that start from the
// same sample (Lu et al. 2022, algorithms 1 and 2).
#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/solver_schedule.h"

namespace limner::engine::samplers {
namespace {

// The order of each step: 1, 2, .. solver_order, and again.
std::vector<int> orders_of_steps(int order, int steps, bool lower_order_final,
                                 bool final_sigma_zero) {
  std::vector<int> orders;
  for (int i = 0; i < steps; ++i) orders.push_back(i % order + 1);
  if (lower_order_final && order == 2 && steps % 2 == 0) orders.back() = 1;
  if (lower_order_final && order == 3 && steps % 3 == 0) orders.back() = 1;
  if (final_sigma_zero) orders.back() = 1;
  return orders;
}

// History: tensors are the sample the group began with, then the latest converted outputs, newest
// last.
class DpmSolverSinglestep final : public Sampler {
 public:
  DpmSolverSinglestep(const Settings& settings, const SamplerRequest& request)
      : settings_(settings),
        algorithm_(solver_algorithm(settings)),
        heun_(settings.solver_type == "heun"),
        flow_(settings.curve == Curve::kFlow) {
    if (algorithm_ == Algorithm::kSdeDpm) {
      throw Failure(ErrorCode::kInvalidModel,
                    "[sampler] dpmpp_2s wants algorithm_type dpmsolver, dpmsolver++ or "
                    "sde-dpmsolver++, got 'sde-dpmsolver'");
    }
    const NoiseSchedule noise = make_noise_schedule(settings, /*finite_sigmas=*/false);
    SolverSchedule schedule = solver_schedule(settings, noise, request, {});
    timesteps_ = std::move(schedule.timesteps);
    sigmas_ = std::move(schedule.sigmas);
    const int steps = static_cast<int>(timesteps_.size());
    const bool lower_final = settings.lower_order_final || settings.final_sigma_zero ||
                             steps % settings.solver_order != 0;
    orders_ = orders_of_steps(settings.solver_order, steps, lower_final, settings.final_sigma_zero);
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    const SolverPoint at = solver_point(sigmas_.at(position), flow_);
    return sample * at.alpha + noise * at.sigma;
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample,
                     Noise& noise) override {
    const std::size_t i = history_.position;
    if (history_.tensors.empty()) history_.tensors.resize(1);
    remember(solver_output(settings_, predicts_clean(algorithm_), model_output, sample,
                           solver_point(sigmas_[i], flow_)));
    at::Tensor fresh;
    if (draws_noise(algorithm_)) fresh = noise.normal(sample.sizes()).to(sample.device());
    const std::size_t known = history_.tensors.size() - 1;
    const std::size_t order = std::min(static_cast<std::size_t>(orders_[i]), known);
    if (order == 1) history_.tensors[0] = sample;
    at::Tensor next = update(order);
    if (!fresh.defined()) return next;
    return next + fresh * coefficients(order).noise;
  }

 private:
  void remember(at::Tensor output) {
    history_.tensors.push_back(std::move(output));
    if (history_.tensors.size() > static_cast<std::size_t>(settings_.solver_order) + 1) {
      history_.tensors.erase(history_.tensors.begin() + 1);
    }
  }

  const at::Tensor& output(std::size_t age) const {
    return history_.tensors.at(history_.tensors.size() - 1 - age);
  }

  double lambda(std::size_t i) const { return solver_point(sigmas_[i], flow_).lambda; }

  // From where the group began, `order - 1` positions back, to the next position.
  SolverCoefficients coefficients(std::size_t order) const {
    const std::size_t i = history_.position;
    return solver_coefficients(algorithm_, solver_point(sigmas_[i + 1 - order], flow_),
                               solver_point(sigmas_[i + 1], flow_));
  }

  at::Tensor update(std::size_t order) const {
    const std::size_t i = history_.position;
    const SolverCoefficients c = coefficients(order);
    const at::Tensor& first = output(order - 1);
    const at::Tensor next = history_.tensors[0] * c.sample + first * c.d0;
    if (order == 1) return next;
    const double start = lambda(i + 1 - order);
    const double h = lambda(i + 1) - start;
    const double r0 = (lambda(i) - start) / h;
    const at::Tensor newest = (output(0) - first) / r0;
    if (order == 2) return next + newest * (heun_ ? c.d1_heun : c.d1_midpoint);
    if (!heun_) return next + newest * c.d1_heun;
    const double r1 = (lambda(i - 1) - start) / h;
    const at::Tensor middle = (output(1) - first) / r1;
    const at::Tensor d1 = (middle * r0 - newest * r1) / (r0 - r1);
    const at::Tensor d2 = (newest - middle) * (2.0 / (r0 - r1));
    return next + d1 * c.d1_heun + d2 * c.d2;
  }

  const Settings settings_;
  const Algorithm algorithm_;
  const bool heun_;
  const bool flow_;
  std::vector<int> orders_;
};

}  // namespace

SamplerPtr make_dpm_solver_singlestep(const Settings& settings, const SamplerRequest& request) {
  Settings plain = settings;
  plain.spacing = Spacing::kLinspace;  // the only one this solver was defined for
  plain.steps_offset = 0;
  return std::make_unique<DpmSolverSinglestep>(plain, request);
}

}  // namespace limner::engine::samplers
