// LCM: multistep sampling of a latent consistency model (Luo et al. 2023, algorithm 3).
#include <ATen/ATen.h>

#include <cmath>

#include "engine/samplers/factories.h"
#include "engine/samplers/prediction.h"
#include "engine/samplers/training_timesteps.h"

namespace limner::engine::samplers {
namespace {

class Lcm final : public Sampler {
 public:
  Lcm(const Settings& settings, const SamplerRequest& request)
      : settings_(settings), schedule_(make_noise_schedule(settings, /*finite_sigmas=*/false)) {
    timesteps_ = distilled_timesteps(settings, request);
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    return noised(sample, noise, alpha_at(position));
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample,
                     Noise& noise) override {
    const std::size_t i = history_.position;
    const double alpha = alpha_at(i);
    const at::Tensor clean =
        limit_clean(settings_, clean_of_preserving(settings_.prediction, model_output, sample,
                                                   std::sqrt(alpha), std::sqrt(1.0 - alpha)));
    // The boundary condition that makes the model an identity at timestep 0.
    constexpr double kSigmaData = 0.5;
    const double t = timestep() * settings_.timestep_scaling;
    const double square = t * t + kSigmaData * kSigmaData;
    const at::Tensor denoised =
        clean * (t / std::sqrt(square)) + sample * (kSigmaData * kSigmaData / square);
    if (i + 1 == timesteps_.size()) return denoised;
    return noised(denoised, noise.normal(sample.sizes()).to(sample.device()), alpha_at(i + 1));
  }

 private:
  double alpha_at(std::size_t position) const {
    return schedule_.alpha(static_cast<std::int64_t>(timesteps_.at(position)));
  }

  const Settings settings_;
  const NoiseSchedule schedule_;
};

}  // namespace

SamplerPtr make_lcm(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<Lcm>(settings, request);
}

}  // namespace limner::engine::samplers
