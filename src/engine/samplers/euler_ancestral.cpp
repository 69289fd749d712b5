// Euler ancestral: an Euler step further down than asked, and fresh noise back up (k-diffusion).
#include <ATen/ATen.h>

#include "engine/samplers/exploding_schedule.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/prediction.h"

namespace limner::engine::samplers {
namespace {

class EulerAncestral final : public Sampler {
 public:
  EulerAncestral(const Settings& settings, const SamplerRequest& request) : settings_(settings) {
    const NoiseSchedule noise = make_noise_schedule(settings, /*finite_sigmas=*/true);
    const ExplodingSchedule schedule = exploding_schedule(settings, noise, request.steps);
    timesteps_ = schedule.timesteps;
    sigmas_ = schedule.sigmas;
    sigmas_.push_back(0.0);
    round_to_float(sigmas_);
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
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample,
                     Noise& noise) override {
    const double from = sigmas_[history_.position];
    const double to = sigmas_[history_.position + 1];
    const auto [up, down] = ancestral_step(from, to);
    const at::Tensor clean = clean_of_exploding(settings_.prediction, model_output, sample, from);
    const at::Tensor derivative = (sample - clean) / from;
    // Drawn at the last step too, where it counts for nothing: the generator's order is part of
    // what a seed means.
    const at::Tensor fresh = noise.normal(sample.sizes()).to(sample.device());
    return sample + derivative * (down - from) + fresh * up;
  }

 private:
  const Settings settings_;
};

}  // namespace

SamplerPtr make_euler_ancestral(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<EulerAncestral>(settings, request);
}

}  // namespace limner::engine::samplers
