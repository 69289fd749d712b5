// The toy model that the sampler tests step: output = x * t / (t + 1), on a fixed sample.
#pragma once

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "engine/samplers/registry.h"

namespace limner::engine::samplers {

inline constexpr std::int64_t kToyCount = 4 * 3 * 8 * 8;

// 0, 1/768, 2/768, ... laid out batch-last: [4, 3, 8, 8].
inline at::Tensor toy_sample() {
  return (at::arange(kToyCount, at::kFloat).reshape({3, 8, 8, 4}) / static_cast<double>(kToyCount))
      .permute({3, 0, 1, 2})
      .contiguous();
}

// The same values, falling.
inline at::Tensor toy_noise() {
  return (at::arange(kToyCount, at::kFloat).flip({0}).reshape({3, 8, 8, 4}) /
          static_cast<double>(kToyCount))
      .permute({3, 0, 1, 2})
      .contiguous();
}

inline at::Tensor toy_output(const at::Tensor& x, double t) {
  return x * static_cast<double>(static_cast<float>(t / (t + 1.0)));
}

inline std::unique_ptr<Sampler> make_or_throw(const nlohmann::json& config,
                                              const SamplerRequest& request) {
  return make_sampler(config, request).value_or_throw();
}

// Steps to the end as a pipeline does. `feed_scaled`: the scaled sample itself is stepped, as some
// loops in the literature do.
inline at::Tensor run_toy(Sampler& sampler, at::Tensor x, bool feed_scaled = false) {
  Noise noise(0);
  while (!sampler.done()) {
    const at::Tensor scaled = sampler.model_input(x);
    x = sampler.step(toy_output(scaled, sampler.timestep()), feed_scaled ? scaled : x, noise);
  }
  return x;
}

inline double absolute_sum(const at::Tensor& x) {
  return x.to(at::kDouble).abs().sum().item<double>();
}

}  // namespace limner::engine::samplers
