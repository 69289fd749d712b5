// 2-D convolution where the weight may be stored in a smaller dtype than the arithmetic uses.
#pragma once

#include <ATen/core/Tensor.h>

namespace limner::engine::kernels {

struct Conv2dOptions {
  int64_t stride = 1;
  int64_t padding = 0;
};

// x [B, in, H, W] (channels-last is the fast layout) in the compute dtype; weight [out, in, kh, kw]
// in the compute dtype or a smaller storage dtype; bias [out] or undefined. Returns [B, out, H',
// W'] in x's memory format.
at::Tensor conv2d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const Conv2dOptions& options);

}  // namespace limner::engine::kernels
