// Timestep embeddings, equal to diffusers' get_timestep_embedding.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/nn/layers.h"

namespace limner::engine::nn {

struct SinusoidOptions {
  int64_t width = 320;
  bool flip_sin_to_cos = true;
  double downscale_freq_shift = 0.0;
  double max_period = 10000.0;
};

// timesteps [N] float32 -> [N, width] float32: sin | cos (or cos | sin when flipped); an odd width
// gets a zero column.
at::Tensor sinusoidal_embedding(const at::Tensor& timesteps, const SinusoidOptions& options);

// linear_1, activation, linear_2.
class TimestepEmbedding {
 public:
  struct Size {
    int64_t in = 0;
    int64_t out = 0;
  };
  TimestepEmbedding(const TensorSource& source, const Size& size, Activation act);
  at::Tensor operator()(const at::Tensor& x, const RowAdapters& adapters = no_adapters()) const;

 private:
  Linear linear_1_, linear_2_;
  Activation act_;
};

}  // namespace limner::engine::nn
