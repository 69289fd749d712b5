#include "engine/nn/resnet.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "parity/fixture.h"

namespace limner::engine::nn {
namespace {

using parity::relative_error;
using parity::source_of;
using Tensors = std::map<std::string, at::Tensor>;

Tensors resnet_tensors(int64_t in, int64_t out, int64_t time_width) {
  Tensors tensors = {{"r.norm1.weight", at::randn({in})},
                     {"r.norm1.bias", at::randn({in})},
                     {"r.conv1.weight", at::randn({out, in, 3, 3})},
                     {"r.conv1.bias", at::randn({out})},
                     {"r.norm2.weight", at::randn({out})},
                     {"r.norm2.bias", at::randn({out})},
                     {"r.conv2.weight", at::randn({out, out, 3, 3})},
                     {"r.conv2.bias", at::randn({out})},
                     {"r.time_emb_proj.weight", at::randn({time_width, 5})},
                     {"r.time_emb_proj.bias", at::randn({time_width})}};
  if (in != out) {
    tensors["r.conv_shortcut.weight"] = at::randn({out, in, 1, 1});
    tensors["r.conv_shortcut.bias"] = at::randn({out});
  }
  return tensors;
}

at::Tensor norm(const Tensors& t, const std::string& name, const at::Tensor& x) {
  return at::group_norm(x, 2, t.at(name + ".weight"), t.at(name + ".bias"), 1e-5);
}

at::Tensor conv(const Tensors& t, const std::string& name, const at::Tensor& x) {
  const at::Tensor& weight = t.at(name + ".weight");
  const int64_t padding = weight.size(-1) / 2;
  return at::conv2d(x, weight, t.at(name + ".bias"), {1, 1}, {padding, padding});
}

at::Tensor time_of(const Tensors& t, const at::Tensor& temb) {
  return at::linear(at::silu(temb), t.at("r.time_emb_proj.weight"), t.at("r.time_emb_proj.bias"))
      .unsqueeze(-1)
      .unsqueeze(-1);
}

TEST(ResnetBlock2DTest, AddsTheTimeBetweenTheConvolutions) {
  at::manual_seed(1);
  const Tensors t = resnet_tensors(4, 6, 6);
  const ResnetBlock2D block(source_of(t).at("r"), {.in = 4,
                                                   .out = 6,
                                                   .time_channels = 5,
                                                   .groups = 2,
                                                   .eps = 1e-5,
                                                   .output_scale_factor = 2.0});
  const at::Tensor x = at::randn({2, 4, 5, 7}), temb = at::randn({2, 5});
  at::Tensor h = conv(t, "r.conv1", at::silu(norm(t, "r.norm1", x))) + time_of(t, temb);
  h = conv(t, "r.conv2", at::silu(norm(t, "r.norm2", h)));
  const at::Tensor want = (conv(t, "r.conv_shortcut", x) + h) / 2;
  const at::Tensor kept = x.clone();
  EXPECT_LT(relative_error(block(x, temb), want), 1e-5);
  EXPECT_LT(relative_error(block(x.contiguous(at::MemoryFormat::ChannelsLast), temb), want), 1e-5);
  EXPECT_TRUE(x.equal(kept));
}

TEST(ResnetBlock2DTest, ScaleShiftModulatesTheSecondNorm) {
  at::manual_seed(2);
  const Tensors t = resnet_tensors(4, 4, 8);
  const ResnetBlock2D block(source_of(t).at("r"), {.in = 4,
                                                   .out = 4,
                                                   .time_channels = 5,
                                                   .scale_shift = true,
                                                   .groups = 2,
                                                   .eps = 1e-5,
                                                   .act_fn = "gelu"});
  const at::Tensor x = at::randn({2, 4, 5, 7}), temb = at::randn({2, 5});
  const auto modulation =
      at::linear(at::gelu(temb), t.at("r.time_emb_proj.weight"), t.at("r.time_emb_proj.bias"))
          .view({2, 8, 1, 1})
          .chunk(2, 1);
  at::Tensor h = conv(t, "r.conv1", at::gelu(norm(t, "r.norm1", x)));
  h = at::gelu(norm(t, "r.norm2", h) * (1 + modulation[0]) + modulation[1]);
  EXPECT_LT(relative_error(block(x, temb), x + conv(t, "r.conv2", h)), 1e-5);
}

TEST(Upsample2DTest, TakesAnExplicitSize) {
  at::manual_seed(3);
  const Tensors t = {{"u.conv.weight", at::randn({3, 2, 3, 3})}, {"u.conv.bias", at::randn({3})}};
  const Upsample2D upsample(source_of(t).at("u"), {.in = 2, .out = 3});
  const at::Tensor x = at::randn({1, 2, 3, 4});
  const at::Tensor doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3);
  EXPECT_LT(relative_error(upsample(x), conv(t, "u.conv", doubled)), 1e-5);
  // 3 rows to 5: row i comes from floor(i * 3 / 5).
  const at::Tensor rows = at::tensor(std::vector<int64_t>{0, 0, 1, 1, 2});
  const at::Tensor odd = x.index_select(2, rows).repeat_interleave(2, 3);
  EXPECT_LT(relative_error(upsample(x, Upsample2D::Extent{5, 8}), conv(t, "u.conv", odd)), 1e-5);
}

TEST(Downsample2DTest, PaddingZeroPadsBelowAndRight) {
  at::manual_seed(4);
  const Tensors t = {{"d.conv.weight", at::randn({3, 2, 3, 3})}, {"d.conv.bias", at::randn({3})}};
  const at::Tensor x = at::randn({1, 2, 5, 6});
  const Downsample2D asymmetric(source_of(t).at("d"), {.in = 2, .out = 3, .padding = 0});
  const at::Tensor padded = at::constant_pad_nd(x, {0, 1, 0, 1});
  const at::Tensor want = at::conv2d(padded, t.at("d.conv.weight"), t.at("d.conv.bias"), {2, 2});
  EXPECT_EQ(want.sizes(), at::IntArrayRef({1, 3, 2, 3}));
  EXPECT_LT(relative_error(asymmetric(x), want), 1e-5);
}

}  // namespace
}  // namespace limner::engine::nn
