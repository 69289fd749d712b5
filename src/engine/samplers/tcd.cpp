// TCD: strategic stochastic sampling of a trajectory consistency model (Zheng et al. 2024,
// algorithm 4); the request's eta is its gamma.
#include <ATen/ATen.h>

#include <cmath>

#include "engine/samplers/factories.h"
#include "engine/samplers/prediction.h"
#include "engine/samplers/sigma_curves.h"
#include "engine/samplers/training_timesteps.h"

namespace limner::engine::samplers {
namespace {

class Tcd final : public Sampler {
 public:
  Tcd(const Settings& settings, const SamplerRequest& request)
      : settings_(settings),
        schedule_(make_noise_schedule(settings, /*finite_sigmas=*/false)),
        eta_(request.eta) {
    timesteps_ = distilled_timesteps(settings, request);
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    return noised(sample, noise, alpha(timesteps_.at(position)));
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample,
                     Noise& noise) override {
    const bool last = history_.position + 1 == timesteps_.size();
    const double t_next = last ? 0.0 : timesteps_[history_.position + 1];
    const double here = alpha(timestep());
    const double target = alpha(std::floor((1.0 - eta_) * t_next));
    const double root = std::sqrt(here);
    const double sigma = std::sqrt(1.0 - here);
    const at::Tensor clean =
        clean_of_preserving(settings_.prediction, model_output, sample, root, sigma);
    const at::Tensor epsilon =
        noise_of_preserving(settings_.prediction, model_output, sample, root, sigma);
    const at::Tensor denoised = noised(clean, epsilon, target);
    if (eta_ <= 0.0 || last) return denoised;
    const double ratio = float_of(alpha(t_next) / target);
    return noised(denoised, noise.normal(sample.sizes()).to(sample.device()), ratio);
  }

 private:
  double alpha(double timestep) const {
    return schedule_.alpha(static_cast<std::int64_t>(timestep));
  }

  const Settings settings_;
  const NoiseSchedule schedule_;
  const double eta_;
};

}  // namespace

SamplerPtr make_tcd(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<Tcd>(settings, request);
}

}  // namespace limner::engine::samplers
