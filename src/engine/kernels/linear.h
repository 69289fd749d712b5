// x W^T + b where the weight may be stored in a smaller dtype than the arithmetic uses.
#pragma once

#include <ATen/core/Tensor.h>

namespace limner::engine::kernels {

// x [..., in] in the compute dtype; weight [out, in] in the compute dtype or a smaller storage
// dtype (bfloat16, float16), widened in cache-sized pieces; bias [out] in the compute dtype, or
// undefined. Returns [..., out].
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace limner::engine::kernels
