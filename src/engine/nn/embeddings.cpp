#include "engine/nn/embeddings.h"

#include <ATen/ATen.h>

#include <cmath>

namespace limner::engine::nn {

at::Tensor sinusoidal_embedding(const at::Tensor& timesteps, const SinusoidOptions& options) {
  const int64_t half = options.width / 2;
  const at::Tensor steps = timesteps.to(at::kFloat);
  const at::Tensor exponent = at::arange(half, steps.options()).mul_(-std::log(options.max_period));
  const at::Tensor frequency =
      (exponent / (static_cast<double>(half) - options.downscale_freq_shift)).exp_();
  const at::Tensor angle = steps.unsqueeze(1) * frequency.unsqueeze(0);  // [N, half]
  const at::Tensor sine = at::sin(angle);
  const at::Tensor cosine = at::cos(angle);
  at::Tensor result =
      options.flip_sin_to_cos ? at::cat({cosine, sine}, 1) : at::cat({sine, cosine}, 1);
  if (options.width % 2 == 1) result = at::constant_pad_nd(result, {0, 1});
  return result;
}

TimestepEmbedding::TimestepEmbedding(const TensorSource& source, const Size& size, Activation act)
    : linear_1_(source.at("linear_1"), {.in = size.in, .out = size.out}),
      linear_2_(source.at("linear_2"), {.in = size.out, .out = size.out}),
      act_(act) {}

at::Tensor TimestepEmbedding::operator()(const at::Tensor& x, const RowAdapters& adapters) const {
  return linear_2_(act_(linear_1_(x, adapters)), adapters);
}

}  // namespace limner::engine::nn
