// Euler steps of rectified flow (Liu et al. 2022; Esser et al. 2024 for the shifts): the model
// gives the velocity, sample = (1 - sigma) * clean + sigma * noise.
#include <ATen/ATen.h>

#include "engine/samplers/factories.h"
#include "engine/samplers/sigma_curves.h"

namespace limner::engine::samplers {
namespace {

class FlowMatchEuler final : public Sampler {
 public:
  FlowMatchEuler(const Settings& settings, const SamplerRequest& request) : settings_(settings) {
    const double train = settings.num_train_timesteps;
    sigmas_ = first_sigmas(request);
    shift_sigmas(request);
    if (settings.curve != Curve::kPlain) {
      sigmas_ = curve_sigmas(settings.curve, settings.sigma_max.value_or(sigmas_.front()),
                             settings.sigma_min.value_or(sigmas_.back()),
                             static_cast<int>(sigmas_.size()));
    }
    round_to_float(sigmas_);
    timesteps_ = request.timesteps;
    if (settings.invert_sigmas) {
      for (double& sigma : sigmas_) sigma = float_of(1.0 - sigma);
    }
    if (timesteps_.empty() || settings.invert_sigmas) {
      timesteps_ = sigmas_;
      for (double& t : timesteps_) t *= train;
    }
    round_to_float(timesteps_);
    sigmas_.push_back(settings.invert_sigmas ? 1.0 : 0.0);
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    const double sigma = sigmas_.at(position);
    return noise * sigma + sample * (1.0 - sigma);
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample,
                     Noise& noise) override {
    const double sigma = sigmas_[history_.position];
    const double next = sigmas_[history_.position + 1];
    if (!settings_.stochastic_sampling) return sample + model_output * (next - sigma);
    const at::Tensor clean = sample - model_output * sigma;
    return clean * (1.0 - next) + noise.normal(sample.sizes()).to(sample.device()) * next;
  }

 private:
  std::vector<double> first_sigmas(const SamplerRequest& request) const {
    if (!request.sigmas.empty()) {
      std::vector<double> sigmas = request.sigmas;
      round_to_float(sigmas);
      return sigmas;
    }
    const double train = settings_.num_train_timesteps;
    if (!request.timesteps.empty()) {
      std::vector<double> sigmas = request.timesteps;
      for (double& sigma : sigmas) sigma /= train;
      return sigmas;
    }
    // A static shift moves the ends of the training schedule before the steps are laid between
    // them, and then each step again: published checkpoints were tuned with both.
    const auto training_end = [&](double sigma) {
      const double plain = float_of(sigma);
      return settings_.use_dynamic_shifting ? plain
                                            : float_of(shift_flow_sigma(settings_.shift, plain));
    };
    std::vector<double> sigmas =
        linspace(training_end(1.0) * train, training_end(1.0 / train) * train, request.steps);
    for (double& sigma : sigmas) sigma /= train;
    return sigmas;
  }

  void shift_sigmas(const SamplerRequest& request) {
    // e^mu / (e^mu + 1 / sigma - 1), the dynamic form, is the static one with shift e^mu.
    const double shift = flow_shift(settings_, request.image_tokens, settings_.shift);
    for (double& sigma : sigmas_) sigma = shift_flow_sigma(shift, sigma);
    if (settings_.shift_terminal > 0.0) stretch_to_terminal(sigmas_, settings_.shift_terminal);
  }

  const Settings settings_;
};

}  // namespace

SamplerPtr make_flow_match_euler(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<FlowMatchEuler>(settings, request);
}

}  // namespace limner::engine::samplers
