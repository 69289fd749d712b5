#include "engine/kernels/attention.h"

#include <ATen/ATen.h>

namespace limner::engine::kernels {

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionOptions& options) {
  const int64_t batch = q.size(0), heads = options.heads, width = q.size(2) / heads;
  const auto split = [&](const at::Tensor& x) {
    return x.view({batch, x.size(1), heads, width}).transpose(1, 2);  // [B, H, L, D]
  };
  const at::Tensor out = at::scaled_dot_product_attention(split(q), split(k), split(v), std::nullopt,
                                                          0.0, options.causal, options.scale);
  return out.transpose(1, 2).reshape({batch, q.size(1), heads * width});
}

}  // namespace limner::engine::kernels
