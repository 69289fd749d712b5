// DDPM ancestral sampling (Ho et al. 2020), eq. 6 and 7, over any falling list of training
// timesteps.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/prediction.h"
#include "engine/samplers/sigma_curves.h"
#include "engine/samplers/training_timesteps.h"

namespace limner::engine::samplers {
namespace {

class Ddpm final : public Sampler {
 public:
  Ddpm(const Settings& settings, const SamplerRequest& request)
      : settings_(settings), schedule_(make_noise_schedule(settings, /*finite_sigmas=*/false)) {
    const std::string& type = settings.variance_type;
    if (!type.empty() && type != "fixed_small" && type != "fixed_small_log" &&
        type != "fixed_large") {
      throw Failure(ErrorCode::kInvalidModel,
                    "[sampler] ddpm wants variance_type fixed_small, fixed_small_log or "
                    "fixed_large, got '" +
                        type + "'");
    }
    timesteps_ = request.timesteps.empty()
                     ? falling_timesteps(settings, request.steps, /*whole=*/true)
                     : explicit_training_timesteps(settings, request);
    check_training_timesteps(settings, timesteps_);
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    return noised(sample, noise, alpha_at(position));
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample,
                     Noise& noise) override {
    const double alpha = alpha_at(history_.position);
    const bool last = history_.position + 1 == timesteps_.size();
    const double alpha_next = last ? 1.0 : alpha_at(history_.position + 1);
    // Rounded as in training code: what is left after 1 - ratio has only a few digits at the end.
    const double ratio = float_of(alpha / alpha_next);
    const double beta = 1.0 - ratio;  // of this step
    const at::Tensor clean =
        limit_clean(settings_, clean_of_preserving(settings_.prediction, model_output, sample,
                                                   std::sqrt(alpha), std::sqrt(1.0 - alpha)));
    const double of_clean = std::sqrt(alpha_next) * beta / (1.0 - alpha);
    const double of_sample = std::sqrt(ratio) * (1.0 - alpha_next) / (1.0 - alpha);
    at::Tensor next = clean * of_clean + sample * of_sample;
    if (timestep() <= 0.0) return next;
    const double variance =
        settings_.variance_type == "fixed_large" ? beta : (1.0 - alpha_next) / (1.0 - alpha) * beta;
    return next +
           noise.normal(sample.sizes()).to(sample.device()) * std::sqrt(std::max(variance, 1e-20));
  }

 private:
  double alpha_at(std::size_t position) const {
    return schedule_.alpha(static_cast<std::int64_t>(timesteps_.at(position)));
  }

  const Settings settings_;
  const NoiseSchedule schedule_;
};

}  // namespace

SamplerPtr make_ddpm(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<Ddpm>(settings, request);
}

}  // namespace limner::engine::samplers
