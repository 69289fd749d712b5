// The AVX-512 product over tensors: shared by linear and conv2d.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/kernels/gemm_avx512.h"

namespace limner::engine::kernels {

// True when x (float32, on the CPU) can be multiplied with `weight` as stored by the AVX-512
// product.
bool has_gemm(const at::Tensor& x, const at::Tensor& weight);

// Fills the weight and bias of a product from tensors; `weight` has rows of contiguous elements.
void set_weight(avx512::Gemm& gemm, const at::Tensor& weight, const at::Tensor& bias);

// Runs the product on torch's threads.
void run_gemm(const avx512::Gemm& gemm);

}  // namespace limner::engine::kernels
