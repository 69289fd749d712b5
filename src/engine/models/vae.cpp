#include "engine/models/vae.h"

#include <ATen/ATen.h>

#include <string_view>
#include <utility>

#include "engine/kernels/attention.h"

namespace limner::engine::models {
namespace {

constexpr double kEps = 1e-6;

nn::ResnetOptions resnet_options(const VaeOptions& options, int64_t in, int64_t out) {
  return {.in = in,
          .out = out,
          .groups = options.norm_num_groups,
          .eps = kEps,
          .act_fn = options.act_fn};
}

nn::TensorSource current_or_old(const nn::TensorSource& source, std::string_view name,
                                std::string_view old_name) {
  return source.has(std::string(old_name) + ".weight") ? source.at(old_name) : source.at(name);
}

}  // namespace

VaeAttention::VaeAttention(const nn::TensorSource& source, const Size& size)
    : group_norm_(source.at("group_norm"),
                  {.channels = size.channels, .groups = size.groups, .eps = kEps}),
      qkv_(nn::Linear::fused(
          {current_or_old(source, "to_q", "query"), current_or_old(source, "to_k", "key"),
           current_or_old(source, "to_v", "value")},
          {.in = size.channels, .out = size.channels})),
      to_out_(current_or_old(source, "to_out.0", "proj_attn"),
              {.in = size.channels, .out = size.channels}) {}

at::Tensor VaeAttention::operator()(const at::Tensor& x) const {
  const int64_t batch = x.size(0), channels = x.size(1), height = x.size(2), width = x.size(3);
  // Channels-last memory is [B, H*W, C] already: the permute and reshape copy nothing.
  at::Tensor h = group_norm_(x).permute({0, 2, 3, 1}).reshape({batch, height * width, channels});
  const auto qkv = qkv_(h).chunk(3, -1);  // 3 of [B, H*W, C]
  h = to_out_(kernels::attention(qkv[0], qkv[1], qkv[2], {.heads = 1}));
  return h.view({batch, height, width, channels}).permute({0, 3, 1, 2}).add_(x);
}

VaeMidBlock::VaeMidBlock(const nn::TensorSource& source, const VaeOptions& options)
    : first_(source.at("resnets.0"), resnet_options(options, options.block_out_channels.back(),
                                                    options.block_out_channels.back())),
      second_(source.at("resnets.1"), resnet_options(options, options.block_out_channels.back(),
                                                     options.block_out_channels.back())) {
  if (options.mid_block_add_attention) {
    attention_.emplace(source.at("attentions.0"),
                       VaeAttention::Size{.channels = options.block_out_channels.back(),
                                          .groups = options.norm_num_groups});
  }
}

at::Tensor VaeMidBlock::operator()(at::Tensor x) const {
  x = first_(std::move(x), {});
  if (attention_) x = (*attention_)(x);
  return second_(std::move(x), {});
}

VaeEncoder::VaeEncoder(const nn::TensorSource& source, const VaeOptions& options)
    : conv_in_(source.at("conv_in"),
               {.in = options.image_channels, .out = options.block_out_channels.front()}),
      mid_block_(source.at("mid_block"), options),
      conv_norm_out_(source.at("conv_norm_out"), {.channels = options.block_out_channels.back(),
                                                  .groups = options.norm_num_groups,
                                                  .eps = kEps}),
      conv_out_(source.at("conv_out"),
                {.in = options.block_out_channels.back(), .out = 2 * options.latent_channels}) {
  int64_t width = options.block_out_channels.front();
  for (std::size_t i = 0; i < options.block_out_channels.size(); ++i) {
    const nn::TensorSource at = source.at("down_blocks").at(i);
    DownBlock block;
    for (int64_t j = 0; j < options.layers_per_block; ++j) {
      const int64_t out = options.block_out_channels[i];
      block.resnets.emplace_back(at.at("resnets").at(static_cast<std::size_t>(j)),
                                 resnet_options(options, std::exchange(width, out), out));
    }
    if (i + 1 < options.block_out_channels.size()) {
      block.downsampler.emplace(at.at("downsamplers.0"),
                                nn::Downsample2D::Size{.in = width, .out = width, .padding = 0});
    }
    down_blocks_.push_back(std::move(block));
  }
}

at::Tensor VaeEncoder::operator()(const at::Tensor& x) const {
  at::Tensor h = conv_in_(x);  // [B, C0, H, W]
  for (const DownBlock& block : down_blocks_) {
    for (const nn::ResnetBlock2D& resnet : block.resnets) h = resnet(std::move(h), {});
    if (block.downsampler) h = (*block.downsampler)(std::move(h));  // [B, Ci, H/2, W/2]
  }
  h = mid_block_(std::move(h));
  h = conv_norm_out_.silu(h);
  return conv_out_(h);  // [B, 2 * latent_channels, h, w]
}

VaeDecoder::VaeDecoder(const nn::TensorSource& source, const VaeOptions& options)
    : conv_in_(source.at("conv_in"),
               {.in = options.latent_channels, .out = options.block_out_channels.back()}),
      mid_block_(source.at("mid_block"), options),
      conv_norm_out_(source.at("conv_norm_out"), {.channels = options.block_out_channels.front(),
                                                  .groups = options.norm_num_groups,
                                                  .eps = kEps}),
      conv_out_(source.at("conv_out"),
                {.in = options.block_out_channels.front(), .out = options.image_channels}) {
  const std::size_t count = options.block_out_channels.size();
  int64_t width = options.block_out_channels.back();
  for (std::size_t i = 0; i < count; ++i) {
    const nn::TensorSource at = source.at("up_blocks").at(i);
    UpBlock block;
    for (int64_t j = 0; j < options.layers_per_block + 1; ++j) {
      const int64_t out = options.block_out_channels[count - 1 - i];
      block.resnets.emplace_back(at.at("resnets").at(static_cast<std::size_t>(j)),
                                 resnet_options(options, std::exchange(width, out), out));
    }
    if (i + 1 < count)
      block.upsampler.emplace(at.at("upsamplers.0"),
                              nn::Upsample2D::Size{.in = width, .out = width});
    up_blocks_.push_back(std::move(block));
  }
}

at::Tensor VaeDecoder::operator()(const at::Tensor& z) const {
  at::Tensor h = conv_in_(z);  // [B, Cn, h, w]
  h = mid_block_(std::move(h));
  for (const UpBlock& block : up_blocks_) {
    for (const nn::ResnetBlock2D& resnet : block.resnets) h = resnet(std::move(h), {});
    if (block.upsampler) h = (*block.upsampler)(std::move(h));  // [B, Ci, 2h, 2w]
  }
  h = conv_norm_out_.silu(h);
  return conv_out_(h);  // [B, image_channels, H, W]
}

}  // namespace limner::engine::models
