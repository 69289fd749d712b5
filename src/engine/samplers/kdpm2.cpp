// KDPM2: second-order steps through the geometric middle of two sigmas (Karras et al. 2022,
// algorithm 2 with the midpoint of k-diffusion's DPM2). The ancestral kind steps further down than
// asked, and adds fresh noise back up.
#include <ATen/ATen.h>

#include <cmath>

#include "engine/samplers/exploding_schedule.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/prediction.h"
#include "engine/samplers/two_call_step.h"

namespace limner::engine::samplers {
namespace {

// History: between the two calls of a step, tensors holds the sample the step began with.
class Kdpm2 final : public Sampler {
 public:
  Kdpm2(const Settings& settings, const SamplerRequest& request, bool ancestral)
      : settings_(settings), ancestral_(ancestral) {
    const NoiseSchedule noise = make_noise_schedule(settings, /*finite_sigmas=*/false);
    ExplodingSchedule schedule = exploding_schedule(settings, noise, request.steps);
    if (settings.curve == Curve::kKarras) {
      for (double& t : schedule.timesteps) t = std::nearbyint(t);
    }
    steps_ = schedule.sigmas;
    steps_.push_back(0.0);
    round_to_float(steps_);
    timesteps_ = {schedule.timesteps.front()};
    for (std::size_t i = 1; i < schedule.timesteps.size(); ++i) {
      timesteps_.push_back(timestep_of_sigma(noise, middle(i - 1)));
      timesteps_.push_back(schedule.timesteps[i]);
    }
    if (settings.curve == Curve::kPlain) round_to_float(timesteps_);
    sigmas_ = doubled(steps_, 3);
    init_noise_sigma_ = exploding_init_sigma(settings, sigmas_);
  }

  at::Tensor model_input(const at::Tensor& sample) const override {
    return exploding_model_input(sample, sigma_of_call());
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    return sample + noise * sigmas_.at(position);
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample,
                     Noise& noise) override {
    const std::size_t i = history_.position / 2;
    const double sigma = sigma_of_call();
    const at::Tensor clean = clean_of_exploding(settings_.prediction, model_output, sample, sigma);
    const at::Tensor derivative = (sample - clean) / sigma;
    if (history_.tensors.empty()) {
      history_.tensors = {sample};
      return sample + derivative * (middle(i) - sigma);
    }
    const at::Tensor start = history_.tensors.front();
    history_.tensors.clear();
    const auto [up, down] = step_from(i);
    const at::Tensor next = start + derivative * (down - steps_[i]);
    if (!ancestral_) return next;
    return next + noise.normal(sample.sizes()).to(sample.device()) * up;
  }

 private:
  AncestralStep step_from(std::size_t i) const {
    if (ancestral_) return ancestral_step(steps_[i], steps_[i + 1]);
    return {.up = 0.0, .down = steps_[i + 1]};
  }

  // Geometric mean of sigma i and of where its step goes down to.
  double middle(std::size_t i) const { return float_of(std::sqrt(steps_[i] * step_from(i).down)); }

  double sigma_of_call() const {
    const std::size_t i = history_.position / 2;
    return history_.position % 2 == 0 ? steps_[i] : middle(i);
  }

  const Settings settings_;
  const bool ancestral_;
  std::vector<double> steps_;  // one sigma per step and the final 0
};

}  // namespace

SamplerPtr make_kdpm2(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<Kdpm2>(settings, request, /*ancestral=*/false);
}

SamplerPtr make_kdpm2_ancestral(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<Kdpm2>(settings, request, /*ancestral=*/true);
}

}  // namespace limner::engine::samplers
