// Euler: first-order steps of the probability flow ODE (Karras et al. 2022, algorithm 2 without
// churn).
#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "engine/samplers/exploding_schedule.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/prediction.h"

namespace limner::engine::samplers {
namespace {

class Euler final : public Sampler {
 public:
  Euler(const Settings& settings, const SamplerRequest& request) : settings_(settings) {
    const NoiseSchedule noise = make_noise_schedule(settings, /*finite_sigmas=*/true);
    if (!request.sigmas.empty()) {
      sigmas_ = request.sigmas;
      round_to_float(sigmas_);
      timesteps_ = timesteps_of_sigmas(noise, sigmas_);
      timesteps_.pop_back();
    } else {
      set_schedule(noise, request);
    }
    if (settings.timestep_type == "continuous" && settings.prediction == Prediction::kVelocity) {
      for (std::size_t i = 0; i < timesteps_.size(); ++i) {
        timesteps_[i] = 0.25 * float_of(std::log(sigmas_[i]));
      }
    }
    round_to_float(timesteps_);
    init_noise_sigma_ = exploding_init_sigma(settings, sigmas_);
  }

  at::Tensor model_input(const at::Tensor& sample) const override {
    return exploding_model_input(sample, sigmas_[history_.position]);
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    return sample + noise * sigmas_.at(position);
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample, Noise&) override {
    const double sigma = sigmas_[history_.position];
    const at::Tensor clean = clean_of_exploding(settings_.prediction, model_output, sample, sigma);
    const at::Tensor derivative = (sample - clean) / sigma;
    return sample + derivative * (sigmas_[history_.position + 1] - sigma);
  }

 private:
  void set_schedule(const NoiseSchedule& noise, const SamplerRequest& request) {
    if (!request.timesteps.empty()) {
      timesteps_ = request.timesteps;
      sigmas_ = interpolate_sigmas(noise, timesteps_);
    } else {
      const ExplodingSchedule schedule = exploding_schedule(settings_, noise, request.steps);
      timesteps_ = schedule.timesteps;
      sigmas_ = schedule.sigmas;
      if (settings_.interpolation_type == "log_linear" && settings_.curve == Curve::kPlain) {
        sigmas_ = linspace(noise.log_sigmas.back(), noise.log_sigmas.front(), request.steps + 1);
        for (double& sigma : sigmas_) sigma = std::exp(sigma);
      }
    }
    sigmas_.push_back(settings_.final_sigma_zero ? 0.0 : noise.sigmas.front());
    round_to_float(sigmas_);
  }

  const Settings settings_;
};

}  // namespace

SamplerPtr make_euler(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<Euler>(settings, request);
}

}  // namespace limner::engine::samplers
