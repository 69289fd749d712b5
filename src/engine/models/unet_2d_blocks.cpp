#include "engine/models/unet_2d_blocks.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace limner::engine::models {
namespace {

nn::ResnetOptions resnet_options(const UNetConfig& config, int64_t in, int64_t out) {
  return {.in = in,
          .out = out,
          .time_channels = config.time_embedding_dim,
          .scale_shift = config.scale_shift,
          .activate_time = false,  // once per forward, not once per block
          .groups = config.norm_num_groups,
          .eps = config.norm_eps,
          .output_scale_factor = 1.0,
          .act_fn = config.act_fn};
}

TransformerOptions transformer_options(const UNetConfig& config, const UNetLevel& level,
                                       int64_t depth) {
  return {.channels = level.channels,
          .heads = level.heads,
          .depth = depth,
          .cross_attention_dim = config.cross_attention_dim,
          .norm_groups = config.norm_num_groups,
          .use_linear_projection = config.use_linear_projection,
          .only_cross_attention = level.only_cross_attention,
          .upcast_attention = config.upcast_attention};
}

}  // namespace

DownBlock::DownBlock(const nn::TensorSource& source, const UNetConfig& config, const Place& place) {
  const UNetLevel& level = config.levels[static_cast<std::size_t>(place.level)];
  for (std::size_t i = 0; i < level.down_depth.size(); ++i) {
    const int64_t in = i == 0 ? place.in_channels : level.channels;
    resnets_.emplace_back(source.at("resnets").at(i), resnet_options(config, in, level.channels));
    if (level.down_cross_attention) {
      attentions_.emplace_back(source.at("attentions").at(i),
                               transformer_options(config, level, level.down_depth[i]));
    }
  }
  if (std::cmp_less(place.level + 1, config.levels.size())) {
    downsampler_.emplace(
        source.at("downsamplers").at(0),
        nn::Downsample2D::Size{
            .in = level.channels, .out = level.channels, .padding = config.downsample_padding});
  }
}

at::Tensor DownBlock::operator()(at::Tensor x, const UNetContext& context, Skips& skips) const {
  for (std::size_t i = 0; i < resnets_.size(); ++i) {
    x = resnets_[i](std::move(x), context.temb, context.adapters);  // [B, C, H, W]
    if (!attentions_.empty()) {
      x = attentions_[i](x, context.encoder_hidden_states, context.adapters);
    }
    skips.push_back(x);
  }
  if (downsampler_) {
    x = (*downsampler_)(std::move(x), context.adapters);  // [B, C, H/2, W/2]
    skips.push_back(x);
  }
  return x;
}

MidBlock2D::MidBlock2D(const nn::TensorSource& source, const UNetConfig& config,
                       bool cross_attention) {
  UNetLevel level = config.levels.back();
  level.only_cross_attention = false;  // says nothing about the middle
  nn::ResnetOptions options = resnet_options(config, level.channels, level.channels);
  options.output_scale_factor = config.mid_block_scale_factor;
  resnets_.emplace_back(source.at("resnets").at(0), options);
  if (!cross_attention) return;
  attentions_.emplace_back(source.at("attentions").at(0),
                           transformer_options(config, level, config.mid_depth));
  resnets_.emplace_back(source.at("resnets").at(1), options);
}

at::Tensor MidBlock2D::operator()(at::Tensor x, const UNetContext& context) const {
  x = resnets_[0](std::move(x), context.temb, context.adapters);  // [B, C, H, W]
  for (std::size_t i = 0; i < attentions_.size(); ++i) {
    x = attentions_[i](x, context.encoder_hidden_states, context.adapters);
    x = resnets_[i + 1](std::move(x), context.temb, context.adapters);
  }
  return x;
}

UpBlock::UpBlock(const nn::TensorSource& source, const UNetConfig& config, int64_t level_index) {
  const auto index = static_cast<std::size_t>(level_index);
  const UNetLevel& level = config.levels[index];
  const int64_t below = config.levels[std::min(index + 1, config.levels.size() - 1)].channels;
  const int64_t above = config.levels[index == 0 ? 0 : index - 1].channels;
  const std::size_t layers = level.up_depth.size();
  for (std::size_t i = 0; i < layers; ++i) {
    const int64_t in = i == 0 ? below : level.channels;
    const int64_t skip = i + 1 == layers ? above : level.channels;
    resnets_.emplace_back(source.at("resnets").at(i),
                          resnet_options(config, in + skip, level.channels));
    if (level.up_cross_attention) {
      attentions_.emplace_back(source.at("attentions").at(i),
                               transformer_options(config, level, level.up_depth[i]));
    }
  }
  if (index != 0) {
    upsampler_.emplace(source.at("upsamplers").at(0),
                       nn::Upsample2D::Size{.in = level.channels, .out = level.channels});
  }
}

at::Tensor UpBlock::operator()(at::Tensor x, const UNetContext& context, Skips& skips) const {
  for (std::size_t i = 0; i < resnets_.size(); ++i) {
    x = at::cat({x, skips.back()}, 1);  // [B, in + skip, H, W]
    skips.pop_back();
    x = resnets_[i](std::move(x), context.temb, context.adapters);  // [B, C, H, W]
    if (!attentions_.empty()) {
      x = attentions_[i](x, context.encoder_hidden_states, context.adapters);
    }
  }
  if (upsampler_) {
    // An odd side was rounded up on the way down: the next skip says what to go back to.
    const at::Tensor& next = skips.back();
    x = (*upsampler_)(std::move(x), nn::Upsample2D::Extent{next.size(2), next.size(3)},
                      context.adapters);  // [B, C, H', W']
  }
  return x;
}

}  // namespace limner::engine::models
