// DPM-Solver and DPM-Solver++, multistep, orders 1 to 3, and their SDE kinds (Lu et al. 2022).
#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/solver_schedule.h"

namespace limner::engine::samplers {
namespace {

// History: tensors are the converted outputs of the latest steps, newest last; the counter is the
// number of steps taken since the start, up to solver_order.
class DpmSolverMultistep final : public Sampler {
 public:
  DpmSolverMultistep(const Settings& settings, const SamplerRequest& request)
      : settings_(settings),
        algorithm_(solver_algorithm(settings)),
        heun_(settings.solver_type == "heun"),
        flow_(settings.curve == Curve::kFlow) {
    if (algorithm_ == Algorithm::kSdeDpm && settings.solver_order == 3) {
      throw Failure(ErrorCode::kInvalidModel,
                    "[sampler] algorithm_type sde-dpmsolver wants solver_order 1 or 2, got 3");
    }
    const NoiseSchedule noise = make_noise_schedule(settings, /*finite_sigmas=*/true);
    SolverScheduleOptions options;
    options.whole_curve_timesteps = settings.beta_schedule != "squaredcos_cap_v2";
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
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample,
                     Noise& noise) override {
    const std::size_t i = history_.position;
    const SolverPoint from = solver_point(sigmas_[i], flow_);
    remember(solver_output(settings_, predicts_clean(algorithm_), model_output, sample, from));
    const SolverCoefficients c =
        solver_coefficients(algorithm_, from, solver_point(sigmas_[i + 1], flow_));
    const int order = order_at(i);
    at::Tensor next = sample * c.sample + output(0) * c.d0;
    if (order == 2) {
      next = next + first_difference(i, 0) * (heun_ ? c.d1_heun : c.d1_midpoint);
    } else if (order == 3) {
      const double h = lambda(i + 1) - lambda(i);
      const double r0 = (lambda(i) - lambda(i - 1)) / h;
      const double r1 = (lambda(i - 1) - lambda(i - 2)) / h;
      const at::Tensor newer = first_difference(i, 0);
      const at::Tensor bend = newer - first_difference(i, 1);
      next = next + (newer + bend * (r0 / (r0 + r1))) * c.d1_heun + bend * (c.d2 / (r0 + r1));
    }
    if (draws_noise(algorithm_)) {
      next = next + noise.normal(sample.sizes()).to(sample.device()) * c.noise;
    }
    history_.counter = std::min<std::int64_t>(history_.counter + 1, settings_.solver_order);
    return next;
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

  double lambda(std::size_t i) const { return solver_point(sigmas_[i], flow_).lambda; }

  // The slope of the outputs between ages `age` and `age + 1`, in units of the current step.
  at::Tensor first_difference(std::size_t i, std::size_t age) const {
    const double h = lambda(i + 1) - lambda(i);
    const double r = (lambda(i - age) - lambda(i - age - 1)) / h;
    return (output(age) - output(age + 1)) / r;
  }

  // Short runs end with lower orders, which are steadier over the last, largest log-SNR steps.
  int order_at(std::size_t i) const {
    const std::size_t count = timesteps_.size();
    const bool short_run = settings_.lower_order_final && count < 15;
    const bool first_last =
        i + 1 == count && (settings_.euler_at_final || short_run || settings_.final_sigma_zero);
    const bool second_last = i + 2 == count && short_run;
    if (settings_.solver_order == 1 || history_.counter < 1 || first_last) return 1;
    if (settings_.solver_order == 2 || history_.counter < 2 || second_last) return 2;
    return 3;
  }

  const Settings settings_;
  const Algorithm algorithm_;
  const bool heun_;
  const bool flow_;
};

}  // namespace

SamplerPtr make_dpm_solver_multistep(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<DpmSolverMultistep>(settings, request);
}

}  // namespace limner::engine::samplers
