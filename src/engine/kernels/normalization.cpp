#include "engine/kernels/normalization.h"

#include <ATen/ATen.h>

namespace limner::engine::kernels {

at::Tensor group_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const GroupNormOptions& options) {
  at::Tensor y = at::group_norm(x, options.groups, weight, bias, options.eps);
  return options.silu ? at::silu_(y) : y;
}

at::Tensor geglu(const at::Tensor& x) {
  const auto halves = x.chunk(2, -1);
  return halves[0] * at::gelu(halves[1]);
}

}  // namespace limner::engine::kernels
