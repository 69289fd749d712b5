// The transformer that a UNet puts between its convolutions, as diffusers lays it out
// (Transformer2DModel over continuous input with BasicTransformerBlock, layer_norm, geglu). Owned
// by unet_2d_blocks.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "engine/nn/layers.h"
#include "engine/nn/row_adapters.h"
#include "engine/nn/tensor_source.h"

namespace limner::engine::models {

// Multi-head attention. Projections that read the same tensor are one product: q, k and v of the
// latents, or k and v of the text.
class Attention {
 public:
  struct Size {
    int64_t width = 0;
    int64_t heads = 1;
    int64_t context_width = 0;  // 0: self-attention
    bool upcast = false;  // float16 only: scores in float32 (torch's kernels do so for the others)
  };
  Attention(const nn::TensorSource& source, const Size& size);

  // x [B, L, width], context [B, Lc, context_width] (not read by self-attention) -> [B, L, width],
  // a new tensor.
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& context,
                        const nn::RowAdapters& adapters) const;

 private:
  Size size_;
  std::optional<nn::Linear> to_qkv_;        // self-attention
  std::optional<nn::Linear> to_q_, to_kv_;  // cross-attention
  nn::Linear to_out_;
};

// Linear to twice the inner width, a * gelu(b), linear back.
class FeedForward {
 public:
  FeedForward(const nn::TensorSource& source, int64_t width);
  at::Tensor operator()(const at::Tensor& x, const nn::RowAdapters& adapters) const;

 private:
  nn::Linear proj_, out_;
};

struct TransformerOptions {
  int64_t channels = 0;
  int64_t heads = 1;
  int64_t depth = 1;
  int64_t cross_attention_dim = 0;
  int64_t norm_groups = 32;
  bool use_linear_projection =
      false;                          // linear layers instead of 1x1 convolutions around the blocks
  bool only_cross_attention = false;  // attn1 reads the text too
  bool upcast_attention = false;
};

class BasicTransformerBlock {
 public:
  BasicTransformerBlock(const nn::TensorSource& source, const TransformerOptions& options);
  // x [B, L, C] is overwritten with the result.
  void operator()(at::Tensor& x, const at::Tensor& context, const nn::RowAdapters& adapters) const;

 private:
  nn::LayerNorm norm1_, norm2_, norm3_;
  Attention attn1_, attn2_;
  FeedForward ff_;
};

class Transformer2DModel {
 public:
  Transformer2DModel(const nn::TensorSource& source, const TransformerOptions& options);
  // x [B, C, H, W], context [B, L, cross_attention_dim] -> [B, C, H, W], a new tensor.
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& context,
                        const nn::RowAdapters& adapters) const;

 private:
  nn::GroupNorm norm_;
  std::optional<nn::Linear> linear_in_, linear_out_;
  std::optional<nn::Conv2d> conv_in_, conv_out_;
  std::vector<BasicTransformerBlock> blocks_;
};

}  // namespace limner::engine::models
