#include "engine/models/transformer_2d.h"

#include <ATen/ATen.h>

#include "engine/kernels/attention.h"
#include "engine/kernels/normalization.h"

namespace limner::engine::models {

Attention::Attention(const nn::TensorSource& source, const Size& size)
    : size_(size), to_out_(source.at("to_out").at(0), {size.width, size.width, true}) {
  if (size.context_width == 0) {
    to_qkv_ = nn::Linear::fused({source.at("to_q"), source.at("to_k"), source.at("to_v")},
                                {size.width, size.width, false});
  } else {
    to_q_.emplace(source.at("to_q"), nn::Linear::Size{size.width, size.width, false});
    to_kv_ = nn::Linear::fused({source.at("to_k"), source.at("to_v")},
                               {size.context_width, size.width, false});
  }
}

at::Tensor Attention::operator()(const at::Tensor& x, const at::Tensor& context,
                                 const nn::RowAdapters& adapters) const {
  at::Tensor q, k, v;
  if (to_qkv_) {
    const at::Tensor qkv = (*to_qkv_)(x, adapters);  // [B, L, 3 C]
    q = qkv.narrow(-1, 0, size_.width);
    k = qkv.narrow(-1, size_.width, size_.width);
    v = qkv.narrow(-1, 2 * size_.width, size_.width);
  } else {
    q = (*to_q_)(x, adapters);                           // [B, L, C]
    const at::Tensor kv = (*to_kv_)(context, adapters);  // [B, Lc, 2 C]
    k = kv.narrow(-1, 0, size_.width);
    v = kv.narrow(-1, size_.width, size_.width);
  }
  const bool upcast = size_.upcast && q.scalar_type() == at::kHalf;
  if (upcast) {
    q = q.to(at::kFloat);
    k = k.to(at::kFloat);
    v = v.to(at::kFloat);
  }
  at::Tensor y = kernels::attention(
      q, k, v, {.heads = size_.heads, .causal = false, .scale = std::nullopt});  // [B, L, C]
  if (upcast) y = y.to(at::kHalf);
  return to_out_(y, adapters);  // [B, L, C]
}

FeedForward::FeedForward(const nn::TensorSource& source, int64_t width)
    : proj_(source.at("net").at(0).at("proj"), {width, 8 * width, true}),
      out_(source.at("net").at(2), {4 * width, width, true}) {}

at::Tensor FeedForward::operator()(const at::Tensor& x, const nn::RowAdapters& adapters) const {
  at::Tensor y = proj_(x, adapters);  // [B, L, 8 C]
  y = kernels::geglu(y);              // [B, L, 4 C]
  return out_(y, adapters);           // [B, L, C]
}

BasicTransformerBlock::BasicTransformerBlock(const nn::TensorSource& source,
                                             const TransformerOptions& options)
    : norm1_(source.at("norm1"), options.channels),
      norm2_(source.at("norm2"), options.channels),
      norm3_(source.at("norm3"), options.channels),
      attn1_(source.at("attn1"),
             {.width = options.channels,
              .heads = options.heads,
              .context_width = options.only_cross_attention ? options.cross_attention_dim : 0,
              .upcast = options.upcast_attention}),
      attn2_(source.at("attn2"), {.width = options.channels,
                                  .heads = options.heads,
                                  .context_width = options.cross_attention_dim,
                                  .upcast = options.upcast_attention}),
      ff_(source.at("ff"), options.channels) {}

void BasicTransformerBlock::operator()(at::Tensor& x, const at::Tensor& context,
                                       const nn::RowAdapters& adapters) const {
  x.add_(attn1_(norm1_(x, adapters), context, adapters));  // [B, L, C]
  x.add_(attn2_(norm2_(x, adapters), context, adapters));  // [B, L, C]
  x.add_(ff_(norm3_(x, adapters), adapters));              // [B, L, C]
}

Transformer2DModel::Transformer2DModel(const nn::TensorSource& source,
                                       const TransformerOptions& options)
    : norm_(source.at("norm"), {options.channels, options.norm_groups, 1e-6}) {
  const int64_t width = options.channels;
  if (options.use_linear_projection) {
    linear_in_.emplace(source.at("proj_in"), nn::Linear::Size{width, width, true});
    linear_out_.emplace(source.at("proj_out"), nn::Linear::Size{width, width, true});
  } else {
    conv_in_.emplace(source.at("proj_in"), nn::Conv2d::Size{width, width, 1, 1, 0});
    conv_out_.emplace(source.at("proj_out"), nn::Conv2d::Size{width, width, 1, 1, 0});
  }
  for (int64_t i = 0; i < options.depth; ++i) {
    blocks_.emplace_back(source.at("transformer_blocks").at(static_cast<std::size_t>(i)), options);
  }
}

at::Tensor Transformer2DModel::operator()(const at::Tensor& x, const at::Tensor& context,
                                          const nn::RowAdapters& adapters) const {
  const int64_t batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  at::Tensor y = norm_(x, adapters);  // [B, C, H, W]
  if (conv_in_) y = (*conv_in_)(y, adapters);
  // Without a copy when the layout is channels last.
  y = y.permute({0, 2, 3, 1}).reshape({batch, height * width, channels});  // [B, H W, C]
  if (linear_in_) y = (*linear_in_)(y, adapters);
  for (const BasicTransformerBlock& block : blocks_) block(y, context, adapters);
  if (linear_out_) y = (*linear_out_)(y, adapters);
  y = y.view({batch, height, width, channels}).permute({0, 3, 1, 2});  // [B, C, H, W]
  if (conv_out_) y = (*conv_out_)(y, adapters);
  return y.add_(x);
}

}  // namespace limner::engine::models
