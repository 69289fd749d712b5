// DDIM (Song, Meng, Ermon 2020), eq. 12 and 16, with eta from the request.
#include <ATen/ATen.h>

#include <cmath>

#include "engine/samplers/factories.h"
#include "engine/samplers/prediction.h"
#include "engine/samplers/sigma_curves.h"
#include "engine/samplers/training_timesteps.h"

namespace limner::engine::samplers {
namespace {

class Ddim final : public Sampler {
 public:
  Ddim(const Settings& settings, const SamplerRequest& request)
      : settings_(settings),
        schedule_(make_noise_schedule(settings, /*finite_sigmas=*/false)),
        eta_(request.eta),
        stride_(settings.num_train_timesteps / request.steps) {
    timesteps_ = falling_timesteps(settings, request.steps, /*whole=*/true);
    check_training_timesteps(settings, timesteps_);
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    return noised(sample, noise, alpha_at(static_cast<std::int64_t>(timesteps_.at(position))));
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample,
                     Noise& noise) override {
    const auto t = static_cast<std::int64_t>(timestep());
    const double alpha = alpha_at(t);
    const double alpha_next = alpha_at(t - stride_);
    const double root = std::sqrt(alpha);
    const double sigma = std::sqrt(1.0 - alpha);
    const at::Tensor epsilon =
        noise_of_preserving(settings_.prediction, model_output, sample, root, sigma);
    const at::Tensor clean = limit_clean(
        settings_, clean_of_preserving(settings_.prediction, model_output, sample, root, sigma));
    const double ratio = float_of(alpha / alpha_next);
    const double variance = (1.0 - alpha_next) / (1.0 - alpha) * (1.0 - ratio);
    const double deviation = eta_ * std::sqrt(variance);
    const double direction = std::sqrt(1.0 - alpha_next - deviation * deviation);
    at::Tensor next = clean * std::sqrt(alpha_next) + epsilon * direction;
    if (eta_ > 0.0) next = next + noise.normal(sample.sizes()).to(sample.device()) * deviation;
    return next;
  }

 private:
  double alpha_at(std::int64_t t) const {
    if (t >= 0) return schedule_.alpha(t);
    return settings_.set_alpha_to_one ? 1.0 : schedule_.alphas_cumprod.front();
  }

  const Settings settings_;
  const NoiseSchedule schedule_;
  const double eta_;
  const std::int64_t stride_;
};

}  // namespace

SamplerPtr make_ddim(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<Ddim>(settings, request);
}

}  // namespace limner::engine::samplers
