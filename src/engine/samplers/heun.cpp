// Heun: the second-order steps of Karras et al. 2022, algorithm 1, two model calls each but the
// last.
#include <ATen/ATen.h>

#include "engine/samplers/exploding_schedule.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/prediction.h"
#include "engine/samplers/two_call_step.h"

namespace limner::engine::samplers {
namespace {

// History: between the two calls of a step, tensors are its first derivative and the sample it
// began with.
class Heun final : public Sampler {
 public:
  Heun(const Settings& settings, const SamplerRequest& request) : settings_(settings) {
    const NoiseSchedule noise = make_noise_schedule(settings, /*finite_sigmas=*/false);
    const ExplodingSchedule schedule = exploding_schedule(settings, noise, request.steps);
    std::vector<double> steps = schedule.sigmas;
    steps.push_back(0.0);
    round_to_float(steps);
    sigmas_ = doubled(steps, 1);
    timesteps_ = {schedule.timesteps.front()};
    if (schedule.timesteps.size() > 1) timesteps_ = doubled(schedule.timesteps, 2);
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
    const std::size_t i = history_.position;
    const double sigma = sigmas_[i];
    at::Tensor clean = clean_of_exploding(settings_.prediction, model_output, sample, sigma);
    if (settings_.clip_sample) {
      clean = clean.clamp(-settings_.clip_sample_range, settings_.clip_sample_range);
    }
    const at::Tensor derivative = (sample - clean) / sigma;
    if (history_.tensors.empty()) {
      history_.tensors = {derivative, sample};
      return sample + derivative * (sigmas_[i + 1] - sigma);
    }
    const at::Tensor mean = (history_.tensors[0] + derivative) / 2.0;
    const at::Tensor start = history_.tensors[1];
    history_.tensors.clear();
    return start + mean * (sigma - sigmas_[i - 1]);
  }

 private:
  const Settings settings_;
};

}  // namespace

SamplerPtr make_heun(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<Heun>(settings, request);
}

}  // namespace limner::engine::samplers
