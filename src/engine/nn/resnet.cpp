#include "engine/nn/resnet.h"

#include <ATen/ATen.h>

#include <utility>

namespace limner::engine::nn {

ResnetBlock2D::ResnetBlock2D(const TensorSource& source, const ResnetOptions& options)
    : options_(options),
      act_(activation(options.act_fn, source.prefix())),
      fuse_silu_(act_ == activation("silu", source.prefix())),
      norm1_(source.at("norm1"),
             {.channels = options.in, .groups = options.groups, .eps = options.eps}),
      norm2_(source.at("norm2"),
             {.channels = options.out, .groups = options.groups, .eps = options.eps}),
      conv1_(source.at("conv1"), {.in = options.in, .out = options.out}),
      conv2_(source.at("conv2"), {.in = options.out, .out = options.out}) {
  if (options.time_channels != 0) {
    const int64_t width = options.scale_shift ? 2 * options.out : options.out;
    time_emb_proj_.emplace(source.at("time_emb_proj"),
                           Linear::Size{.in = options.time_channels, .out = width});
  }
  if (options.in != options.out) {
    conv_shortcut_.emplace(
        source.at("conv_shortcut"),
        Conv2d::Size{.in = options.in, .out = options.out, .kernel = 1, .padding = 0});
  }
}

at::Tensor ResnetBlock2D::normed(const GroupNorm& norm, const at::Tensor& x,
                                 const RowAdapters& adapters) const {
  return fuse_silu_ ? norm.silu(x, adapters) : act_(norm(x, adapters));
}

at::Tensor ResnetBlock2D::operator()(at::Tensor x, const at::Tensor& temb,
                                     const RowAdapters& adapters) const {
  at::Tensor h = conv1_(normed(norm1_, x, adapters), adapters);  // [B, out, H, W]
  at::Tensor time;                                               // [B, out or 2*out, 1, 1]
  if (time_emb_proj_) {
    time = (*time_emb_proj_)(options_.activate_time ? act_(temb) : temb, adapters)
               .unsqueeze(-1)
               .unsqueeze(-1);
  }
  if (time.defined() && options_.scale_shift) {
    const auto scale_and_shift = time.chunk(2, 1);
    h = norm2_(h, adapters).mul_(scale_and_shift[0] + 1).add_(scale_and_shift[1]);
    h = act_(h);
  } else {
    if (time.defined()) h.add_(time);
    h = normed(norm2_, h, adapters);
  }
  h = conv2_(h, adapters);
  if (conv_shortcut_) x = (*conv_shortcut_)(x, adapters);
  h.add_(x);
  if (options_.output_scale_factor != 1.0) h.div_(options_.output_scale_factor);
  return h;
}

Upsample2D::Upsample2D(const TensorSource& source, const Size& size) {
  if (size.conv) conv_.emplace(source.at("conv"), Conv2d::Size{.in = size.in, .out = size.out});
}

at::Tensor Upsample2D::operator()(at::Tensor x, const std::optional<Extent>& output_size,
                                  const RowAdapters& adapters) const {
  const Extent extent = output_size.value_or(Extent{2 * x.size(2), 2 * x.size(3)});
  x = at::upsample_nearest2d(x, extent);
  return conv_ ? (*conv_)(x, adapters) : x;
}

Downsample2D::Downsample2D(const TensorSource& source, const Size& size) : padding_(size.padding) {
  if (size.conv) {
    conv_.emplace(
        source.at("conv"),
        Conv2d::Size{.in = size.in, .out = size.out, .stride = 2, .padding = size.padding});
  }
}

at::Tensor Downsample2D::operator()(at::Tensor x, const RowAdapters& adapters) const {
  if (!conv_) return at::avg_pool2d(x, {2, 2}, {2, 2});
  if (padding_ == 0) x = at::constant_pad_nd(x, {0, 1, 0, 1});
  return (*conv_)(x, adapters);
}

}  // namespace limner::engine::nn
