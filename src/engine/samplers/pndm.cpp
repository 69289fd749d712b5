// PNDM (Liu et al. 2022): Runge-Kutta warm-up, unless skipped, then linear multistep in epsilon.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/sigma_curves.h"
#include "engine/samplers/training_timesteps.h"

namespace limner::engine::samplers {
namespace {

// History: the counter is the number of calls since the start; tensors are the sample a step began
// with (or undefined), the Runge-Kutta sum so far (or undefined), and then up to four model
// outputs.
class Pndm final : public Sampler {
 public:
  Pndm(const Settings& settings, const SamplerRequest& request)
      : settings_(settings),
        schedule_(make_noise_schedule(settings, /*finite_sigmas=*/false)),
        stride_(settings.num_train_timesteps / request.steps) {
    const std::vector<double> falling = falling_timesteps(settings, request.steps, /*whole=*/true);
    check_training_timesteps(settings, falling);
    if (settings.skip_prk_steps) {
      timesteps_ = falling;
      // The second timestep is visited twice: the first step is corrected once its end is known.
      if (falling.size() > 1) timesteps_.insert(timesteps_.begin() + 1, falling[1]);
    } else {
      warm_up_timesteps(falling);
    }
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    return noised(sample, noise, alpha_at(static_cast<std::int64_t>(timesteps_.at(position))));
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample, Noise&) override {
    if (history_.tensors.size() < 2) history_.tensors.resize(2);
    const bool warm_up = static_cast<std::size_t>(history_.counter) < warm_up_.size();
    at::Tensor next = warm_up ? runge_kutta(model_output, sample) : multistep(model_output, sample);
    ++history_.counter;
    return next;
  }

 private:
  void warm_up_timesteps(const std::vector<double>& falling) {
    if (falling.size() < 4) {
      throw Failure(ErrorCode::kInvalidArgument,
                    "[sampler] pndm with skip_prk_steps false wants at least 4 steps, got " +
                        std::to_string(falling.size()));
    }
    const double half = static_cast<double>(stride_ / 2);
    // Each of the first three steps is taken as t, middle, middle, next.
    for (std::size_t i = 0; i < 3; ++i) {
      const double middle = falling[i + 1] + half;
      warm_up_.insert(warm_up_.end(), {falling[i], middle, middle, falling[i + 1]});
    }
    timesteps_ = warm_up_;
    timesteps_.insert(timesteps_.end(), falling.begin() + 3, falling.end());
  }

  at::Tensor runge_kutta(const at::Tensor& model_output, const at::Tensor& sample) {
    std::vector<at::Tensor>& kept = history_.tensors;
    const std::int64_t stage = history_.counter % 4;
    const auto here = static_cast<std::int64_t>(timestep());
    const std::int64_t next = stage % 2 == 1 ? here : here - stride_ / 2;
    const auto from =
        static_cast<std::int64_t>(warm_up_[static_cast<std::size_t>(history_.counter - stage)]);
    at::Tensor slope = model_output;
    if (stage == 0) {
      kept[0] = sample;
      kept[1] = model_output / 6.0;
      kept.push_back(model_output);
    } else if (stage < 3) {
      kept[1] = kept[1] + model_output / 3.0;
    } else {
      slope = kept[1] + model_output / 6.0;
      kept[1].reset();
    }
    return transfer(kept[0], from, next, slope);
  }

  at::Tensor multistep(const at::Tensor& model_output, const at::Tensor& sample) {
    auto here = static_cast<std::int64_t>(timestep());
    std::int64_t next = here - stride_;
    std::vector<at::Tensor>& kept = history_.tensors;  // outputs from index 2 on
    const bool correction = history_.counter == 1;
    if (correction) {
      next = here;
      here += stride_;
    } else {
      if (kept.size() == 6) kept.erase(kept.begin() + 2);
      kept.push_back(model_output);
    }
    const auto e = [&](std::size_t age) { return kept[kept.size() - 1 - age]; };
    const std::size_t count = kept.size() - 2;
    if (count == 1 && correction) {
      const at::Tensor from = kept[0];
      kept[0].reset();
      return transfer(from, here, next, (model_output + e(0)) / 2.0);
    }
    if (count == 1) {
      kept[0] = sample;
      return transfer(sample, here, next, model_output);
    }
    if (count == 2) return transfer(sample, here, next, (e(0) * 3.0 - e(1)) / 2.0);
    if (count == 3) {
      return transfer(sample, here, next, (e(0) * 23.0 - e(1) * 16.0 + e(2) * 5.0) / 12.0);
    }
    return transfer(sample, here, next,
                    (e(0) * 55.0 - e(1) * 59.0 + e(2) * 37.0 - e(3) * 9.0) / 24.0);
  }

  // Eq. 9 of the paper: the sample at `to` when the model's noise between is `model_output`.
  at::Tensor transfer(const at::Tensor& sample, std::int64_t from, std::int64_t to,
                      const at::Tensor& model_output) const {
    const double alpha = alpha_at(from);
    const double alpha_to = alpha_at(to);
    at::Tensor epsilon = model_output;
    if (settings_.prediction == Prediction::kVelocity) {
      epsilon = model_output * std::sqrt(alpha) + sample * std::sqrt(1.0 - alpha);
    }
    const double divisor =
        alpha * std::sqrt(1.0 - alpha_to) + std::sqrt(alpha * (1.0 - alpha) * alpha_to);
    return sample * std::sqrt(alpha_to / alpha) - epsilon * ((alpha_to - alpha) / divisor);
  }

  double alpha_at(std::int64_t t) const {
    if (t >= 0) return schedule_.alpha(t);
    return settings_.set_alpha_to_one ? 1.0 : schedule_.alphas_cumprod.front();
  }

  const Settings settings_;
  const NoiseSchedule schedule_;
  const std::int64_t stride_;
  std::vector<double> warm_up_;  // timesteps of the Runge-Kutta calls
};

}  // namespace

SamplerPtr make_pndm(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<Pndm>(settings, request);
}

}  // namespace limner::engine::samplers
