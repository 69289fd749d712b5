// Normalisations and gates with their activation in one pass.
#pragma once

#include <ATen/core/Tensor.h>

namespace limner::engine::kernels {

struct GroupNormOptions {
  int64_t groups = 32;
  double eps = 1e-5;
  bool silu = false;  // apply x*sigmoid(x) after the affine map
};

// x [B, C, H, W] or [B, C, L]; weight and bias [C] in x's dtype or float32. Statistics in float32.
// Keeps x's memory format.
at::Tensor group_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const GroupNormOptions& options);

// a * gelu(b) (exact, erf) where x [..., 2n] = a | b. Returns [..., n].
at::Tensor geglu(const at::Tensor& x);

}  // namespace limner::engine::kernels
