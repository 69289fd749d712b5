// Fused kernels for CUDA tensors. cuda.cpp answers in builds with LIMNER_CUDA, no_cuda.cpp in all
// others.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "engine/kernels/normalization.h"

namespace limner::engine::kernels {

// As group_norm and geglu of normalization.h for float32, float16 and bfloat16 on CUDA; group_norm
// takes dense channels-last tensors. Nothing where this build or layout has no kernel: the caller
// then uses torch's operators.
std::optional<at::Tensor> group_norm_cuda(const at::Tensor& x, const at::Tensor& weight,
                                          const at::Tensor& bias, const GroupNormOptions& options);
std::optional<at::Tensor> geglu_cuda(const at::Tensor& x);

}  // namespace limner::engine::kernels
