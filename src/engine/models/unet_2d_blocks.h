// The down, mid and up blocks of UNet2DConditionModel. A block with and one without transformers is
// the same class: DownBlock2D is CrossAttnDownBlock2D with no attentions.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "engine/models/transformer_2d.h"
#include "engine/models/unet_2d_config.h"
#include "engine/nn/resnet.h"

namespace limner::engine::models {

// What every block reads besides the latents; lives as long as one forward.
struct UNetContext {
  at::Tensor temb;                   // [B, T], already activated
  at::Tensor encoder_hidden_states;  // [B, L, cross_attention_dim]
  const nn::RowAdapters& adapters;
};

// Outputs of the way down, taken from the end on the way up and freed as soon as they are read.
using Skips = std::vector<at::Tensor>;

// DownBlock2D and CrossAttnDownBlock2D.
class DownBlock {
 public:
  struct Place {
    int64_t level = 0;
    int64_t in_channels = 0;  // of the block above
  };
  DownBlock(const nn::TensorSource& source, const UNetConfig& config, const Place& place);
  // x [B, in, H, W] -> [B, C, H/2, W/2] (the last block keeps H, W); one skip per layer and one for
  // the downsampler.
  at::Tensor operator()(at::Tensor x, const UNetContext& context, Skips& skips) const;

 private:
  std::vector<nn::ResnetBlock2D> resnets_;
  std::vector<Transformer2DModel> attentions_;  // empty, or one per resnet
  std::optional<nn::Downsample2D> downsampler_;
};

// UNetMidBlock2DCrossAttn, or UNetMidBlock2D with its one resnet.
class MidBlock2D {
 public:
  MidBlock2D(const nn::TensorSource& source, const UNetConfig& config, bool cross_attention);
  at::Tensor operator()(at::Tensor x, const UNetContext& context) const;  // keeps the shape

 private:
  std::vector<nn::ResnetBlock2D> resnets_;
  std::vector<Transformer2DModel> attentions_;
};

// UpBlock2D and CrossAttnUpBlock2D.
class UpBlock {
 public:
  // `level` counts from the finest, as in UNetConfig; the up blocks of a checkpoint count the other
  // way.
  UpBlock(const nn::TensorSource& source, const UNetConfig& config, int64_t level);
  // x [B, below, H, W] -> [B, C, H', W'], where H', W' are those of the next skip (the finest level
  // keeps H, W).
  at::Tensor operator()(at::Tensor x, const UNetContext& context, Skips& skips) const;

 private:
  std::vector<nn::ResnetBlock2D> resnets_;
  std::vector<Transformer2DModel> attentions_;
  std::optional<nn::Upsample2D> upsampler_;
};

}  // namespace limner::engine::models
