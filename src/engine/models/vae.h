// The encoder and decoder halves of AutoencoderKL (diffusers' models/autoencoders/vae.py).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/nn/layers.h"
#include "engine/nn/resnet.h"

namespace limner::engine::models {

struct VaeOptions {
  int64_t image_channels = 3;  // of what the encoder reads or the decoder writes
  int64_t latent_channels = 4;
  std::vector<int64_t> block_out_channels;
  int64_t layers_per_block = 1;
  int64_t norm_num_groups = 32;
  std::string act_fn = "silu";
  bool mid_block_add_attention = true;
};

// One head over all positions, with its GroupNorm and residual.
class VaeAttention {
 public:
  struct Size {
    int64_t channels = 0;
    int64_t groups = 32;
  };
  // Also under the names of checkpoints before diffusers 0.17 (query, key, value, proj_attn).
  VaeAttention(const nn::TensorSource& source, const Size& size);
  at::Tensor operator()(const at::Tensor& x) const;  // [B, C, H, W] -> same

 private:
  nn::GroupNorm group_norm_;
  nn::Linear qkv_, to_out_;
};

// UNetMidBlock2D without a time embedding: resnet, attention (where asked for), resnet.
class VaeMidBlock {
 public:
  VaeMidBlock(const nn::TensorSource& source, const VaeOptions& options);
  at::Tensor operator()(at::Tensor x) const;

 private:
  nn::ResnetBlock2D first_;
  std::optional<VaeAttention> attention_;
  nn::ResnetBlock2D second_;
};

class VaeEncoder {
 public:
  VaeEncoder(const nn::TensorSource& source, const VaeOptions& options);
  // x [B, image_channels, H, W] -> [B, 2 * latent_channels, h, w]: mean and logvar before
  // quant_conv.
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  struct DownBlock {
    std::vector<nn::ResnetBlock2D> resnets;
    std::optional<nn::Downsample2D> downsampler;
  };
  nn::Conv2d conv_in_;
  std::vector<DownBlock> down_blocks_;
  VaeMidBlock mid_block_;
  nn::GroupNorm conv_norm_out_;
  nn::Conv2d conv_out_;
};

class VaeDecoder {
 public:
  VaeDecoder(const nn::TensorSource& source, const VaeOptions& options);
  // z [B, latent_channels, h, w] after post_quant_conv -> [B, image_channels, H, W].
  at::Tensor operator()(const at::Tensor& z) const;

 private:
  struct UpBlock {
    std::vector<nn::ResnetBlock2D> resnets;
    std::optional<nn::Upsample2D> upsampler;
  };
  nn::Conv2d conv_in_;
  VaeMidBlock mid_block_;
  std::vector<UpBlock> up_blocks_;
  nn::GroupNorm conv_norm_out_;
  nn::Conv2d conv_out_;
};

}  // namespace limner::engine::models
