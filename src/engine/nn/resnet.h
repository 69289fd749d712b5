// The residual block and the two resamplers that UNet and VAE share. Tensor names as in diffusers.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string>

#include "engine/nn/layers.h"

namespace limner::engine::nn {

struct ResnetOptions {
  int64_t in = 0;
  int64_t out = 0;
  int64_t time_channels = 0;  // width of the time embedding; 0: the block takes none
  bool scale_shift = false;   // time_embedding_norm "scale_shift" instead of "default"
  bool activate_time = true;  // false: `temb` is taken as it comes (skip_time_act, or already
                              // activated by the caller)
  int64_t groups = 32;
  double eps = 1e-6;
  double output_scale_factor = 1.0;
  std::string act_fn = "silu";
};

// norm1, act, conv1, + time, norm2, act, conv2, + (conv_shortcut of) the input. A 1x1 conv_shortcut
// exists where `in` and `out` differ.
class ResnetBlock2D {
 public:
  ResnetBlock2D(const TensorSource& source, const ResnetOptions& options);
  // x [B, in, H, W], temb [B, time_channels] or undefined -> [B, out, H, W]. Move x in where it is
  // not needed later.
  at::Tensor operator()(at::Tensor x, const at::Tensor& temb,
                        const RowAdapters& adapters = no_adapters()) const;

 private:
  // norm and activation
  at::Tensor normed(const GroupNorm& norm, const at::Tensor& x, const RowAdapters& adapters) const;

  ResnetOptions options_;
  Activation act_;
  bool fuse_silu_;
  GroupNorm norm1_, norm2_;
  Conv2d conv1_, conv2_;
  std::optional<Linear> time_emb_proj_;
  std::optional<Conv2d> conv_shortcut_;
};

// Nearest neighbour, twice the size or to an explicit one, then an optional 3x3 convolution.
class Upsample2D {
 public:
  struct Size {
    int64_t in = 0;
    int64_t out = 0;
    bool conv = true;
  };
  Upsample2D(const TensorSource& source, const Size& size);
  using Extent = std::array<int64_t, 2>;  // height, width
  at::Tensor operator()(at::Tensor x, const std::optional<Extent>& output_size = std::nullopt,
                        const RowAdapters& adapters = no_adapters()) const;

 private:
  std::optional<Conv2d> conv_;
};

// A 3x3 convolution of stride 2, or a 2x2 mean. Padding 0 pads one row below and one column to the
// right (the VAE's encoder); padding 1 pads all sides.
class Downsample2D {
 public:
  struct Size {
    int64_t in = 0;
    int64_t out = 0;
    int64_t padding = 1;
    bool conv = true;
  };
  Downsample2D(const TensorSource& source, const Size& size);
  at::Tensor operator()(at::Tensor x, const RowAdapters& adapters = no_adapters()) const;

 private:
  int64_t padding_;
  std::optional<Conv2d> conv_;
};

}  // namespace limner::engine::nn
