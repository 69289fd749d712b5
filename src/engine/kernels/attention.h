// Scaled dot-product attention over unsplit heads.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace limner::engine::kernels {

struct AttentionOptions {
  int64_t heads = 1;
  bool causal = false;
  std::optional<double> scale = std::nullopt;  // default 1/sqrt(head width)
};

// softmax(q k^T * scale) v per head.
// q [B, Lq, heads*D], k and v [B, Lk, heads*D], any strides with a contiguous last axis, all of one
// dtype (float32, bfloat16 or float16); returns [B, Lq, heads*D], contiguous. Thread-safe.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionOptions& options);

}  // namespace limner::engine::kernels
