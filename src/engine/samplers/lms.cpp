// Linear multistep (Adams-Bashforth over sigma with uneven steps), order 4, as k-diffusion's LMS.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "engine/samplers/exploding_schedule.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/prediction.h"

namespace limner::engine::samplers {
namespace {

constexpr std::size_t kOrder = 4;

// History: tensors are the latest derivatives, newest last.
class Lms final : public Sampler {
 public:
  Lms(const Settings& settings, const SamplerRequest& request) : settings_(settings) {
    const NoiseSchedule noise = make_noise_schedule(settings, /*finite_sigmas=*/false);
    const ExplodingSchedule schedule = exploding_schedule(settings, noise, request.steps);
    timesteps_ = schedule.timesteps;
    round_to_float(timesteps_);
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
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample, Noise&) override {
    const double sigma = sigmas_[history_.position];
    const at::Tensor clean = clean_of_exploding(settings_.prediction, model_output, sample, sigma);
    std::vector<at::Tensor>& derivatives = history_.tensors;
    derivatives.push_back((sample - clean) / sigma);
    if (derivatives.size() > kOrder) derivatives.erase(derivatives.begin());
    const std::size_t order = std::min(history_.position + 1, kOrder);
    at::Tensor change;
    for (std::size_t age = 0; age < std::min(order, derivatives.size()); ++age) {
      const at::Tensor part = derivatives[derivatives.size() - 1 - age] * coefficient(order, age);
      change = change.defined() ? change + part : part;
    }
    return sample + change;
  }

 private:
  // The integral over this step of the Lagrange basis polynomial of the derivative `age` steps
  // back. Its degree is at most 3, for which two Gauss-Legendre points are exact.
  double coefficient(std::size_t order, std::size_t age) const {
    const std::size_t i = history_.position;
    const auto basis = [&](double x) {
      double product = 1.0;
      for (std::size_t k = 0; k < order; ++k) {
        if (k == age) continue;
        product *= (x - sigmas_[i - k]) / (sigmas_[i - age] - sigmas_[i - k]);
      }
      return product;
    };
    const double middle = 0.5 * (sigmas_[i] + sigmas_[i + 1]);
    const double half = 0.5 * (sigmas_[i + 1] - sigmas_[i]);
    const double offset = half / std::sqrt(3.0);
    return half * (basis(middle - offset) + basis(middle + offset));
  }

  const Settings settings_;
};

}  // namespace

SamplerPtr make_lms(const Settings& settings, const SamplerRequest& request) {
  return std::make_unique<Lms>(settings, request);
}

}  // namespace limner::engine::samplers
