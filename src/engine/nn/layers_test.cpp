#include "engine/nn/layers.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/nn/embeddings.h"
#include "parity/fixture.h"

namespace limner::engine::nn {
namespace {

using parity::relative_error;
using parity::source_of;

at::Tensor row(std::vector<float> values) {
  return at::tensor(values);
}

LowRank low_rank_branch(at::Tensor down, at::Tensor up, double scale) {
  return {.down = std::move(down), .up = std::move(up), .scale = scale};
}

TEST(LinearTest, FusedPartsEqualSeparateLayers) {
  at::manual_seed(1);
  const TensorSource source = source_of({{"q.weight", at::randn({6, 5})},
                                         {"q.bias", at::randn({6})},
                                         {"k.weight", at::randn({6, 5})},
                                         {"k.bias", at::randn({6})}});
  const Linear::Size size{.in = 5, .out = 6};
  const at::Tensor x = at::randn({2, 3, 5});
  const at::Tensor fused = Linear::fused({source.at("q"), source.at("k")}, size)(x);
  const at::Tensor separate =
      at::cat({Linear(source.at("q"), size)(x), Linear(source.at("k"), size)(x)}, -1);
  EXPECT_LT(relative_error(fused, separate), 1e-6);
}

TEST(LinearTest, AdaptersChangeOnlyTheirRowsAndTheirPart) {
  at::manual_seed(2);
  const TensorSource source =
      source_of({{"a.q.weight", at::randn({4, 5})}, {"a.k.weight", at::randn({4, 5})}});
  const Linear layer =
      Linear::fused({source.at("a").at("q"), source.at("a.k")}, {.in = 5, .out = 4, .bias = false});
  const at::Tensor x = at::randn({3, 2, 5});
  const at::Tensor down = at::randn({2, 5}), up = at::randn({4, 2});
  RowAdapters adapters(3);
  adapters.add("a.k", low_rank_branch(down, up, 0.25), std::vector<float>{0, 2, 0});
  adapters.add("a.k", low_rank_branch(down, up, -2.0), std::vector<float>{0, 1, 1});
  adapters.add("a.k", low_rank_branch(down, up, 0.5),
               std::vector<float>{0, -1, 1});  // shares slots
  adapters.add("elsewhere", low_rank_branch(down, up, 9.0), std::vector<float>{1, 1, 1});

  const at::Tensor plain = layer(x);
  const at::Tensor adapted = layer(x, adapters);
  EXPECT_TRUE(adapted[0].equal(plain[0]));
  EXPECT_TRUE(adapted.narrow(-1, 0, 4).equal(plain.narrow(-1, 0, 4)));
  const at::Tensor low_rank = x.matmul(down.t()).matmul(up.t());
  EXPECT_LT(
      relative_error(adapted[1].narrow(-1, 4, 4), plain[1].narrow(-1, 4, 4) - 2.0 * low_rank[1]),
      1e-5);
  EXPECT_LT(
      relative_error(adapted[2].narrow(-1, 4, 4), plain[2].narrow(-1, 4, 4) - 1.5 * low_rank[2]),
      1e-5);
}

TEST(Conv2dTest, AdaptersUseTheLayersStrideAndPadding) {
  at::manual_seed(3);
  const TensorSource source =
      source_of({{"c.weight", at::randn({4, 3, 3, 3})}, {"c.bias", at::randn({4})}});
  const Conv2d layer(source.at("c"), {.in = 3, .out = 4, .stride = 2});
  const at::Tensor x = at::randn({2, 3, 7, 6}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor down = at::randn({2, 3, 3, 3}), up = at::randn({4, 2, 1, 1});
  RowAdapters adapters(2);
  adapters.add("c", low_rank_branch(down, up, 0.25), std::vector<float>{0, 1});

  const at::Tensor plain = layer(x);
  const at::Tensor adapted = layer(x, adapters);
  EXPECT_EQ(plain.sizes(), at::IntArrayRef({2, 4, 4, 3}));
  EXPECT_TRUE(adapted[0].equal(plain[0]));
  const at::Tensor low_rank = at::conv2d(at::conv2d(x, down, {}, {2, 2}, {1, 1}), up);
  EXPECT_LT(relative_error(adapted[1], plain[1] + 0.25 * low_rank[1]), 1e-5);
}

TEST(GroupNormTest, SiluIsTheNormThenTheGate) {
  at::manual_seed(4);
  const TensorSource source = source_of({{"n.weight", at::randn({6})}, {"n.bias", at::randn({6})}});
  const GroupNorm norm(source.at("n"), {.channels = 6, .groups = 3, .eps = 1e-6});
  const at::Tensor x = (at::randn({2, 6, 5, 3}) * 3 + 1).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor grouped = x.reshape({2, 3, 30}).to(at::kDouble);
  const at::Tensor mean = grouped.mean(-1, true);
  const at::Tensor deviation = ((grouped - mean).square().mean(-1, true) + 1e-6).sqrt();
  const at::Tensor want = ((grouped - mean) / deviation).view({2, 6, 5, 3}) *
                              source.take("n.weight", {6}).view({1, 6, 1, 1}) +
                          source.take("n.bias", {6}).view({1, 6, 1, 1});
  EXPECT_LT(relative_error(norm(x), want), 1e-5);
  EXPECT_LT(relative_error(norm.silu(x), want * want.sigmoid()), 1e-5);
}

TEST(GroupNormTest, GroupsThatDoNotDivideTheChannelsAreAnError) {
  const TensorSource source =
      source_of({{"mid.norm.weight", at::ones({6})}, {"mid.norm.bias", at::ones({6})}});
  try {
    GroupNorm(source.at("mid.norm"), {.channels = 6, .groups = 4});
    FAIL() << "accepted";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kInvalidModel);
    EXPECT_NE(std::string(failure.what()).find("mid.norm: 6 channels"), std::string::npos)
        << failure.what();
  }
}

TEST(EmbeddingTest, RowsComeInTheComputeDtype) {
  const at::Tensor table = at::arange(6, at::kFloat).view({3, 2}).to(at::kHalf);
  const TensorSource source = source_of(
      {{"e.weight", table}}, {.storage = at::kHalf, .compute = at::kFloat, .device = at::kCPU});
  const at::Tensor rows =
      Embedding(source.at("e"), {.rows = 3, .width = 2})(at::tensor(std::vector<int64_t>{2, 0}));
  EXPECT_EQ(rows.scalar_type(), at::kFloat);
  EXPECT_TRUE(rows.equal(row({4, 5, 0, 1}).view({2, 2})));
}

// Values of transformers' ACT2FN in float64.
TEST(ActivationTest, FormulasGiveTheReferencesNumbers) {
  const std::map<std::string, std::vector<float>> want = {
      {"silu", {-0.2384058f, -0.1887703f, 0.7310586f, 2.8577224f}},
      {"SWISH", {-0.2384058f, -0.1887703f, 0.7310586f, 2.8577224f}},
      {"gelu", {-0.0455003f, -0.1542688f, 0.8413447f, 2.9959503f}},
      {"gelu_new", {-0.0454023f, -0.154286f, 0.841192f, 2.9963626f}},
      {"gelu_pytorch_tanh", {-0.0454023f, -0.154286f, 0.841192f, 2.9963626f}},
      {"quick_gelu", {-0.0643414f, -0.1496116f, 0.8457958f, 2.9819287f}},
      {"relu", {0, 0, 1, 3}},
      {"mish", {-0.2525015f, -0.2207438f, 0.8650984f, 2.986535f}}};
  for (const auto& [name, values] : want) {
    EXPECT_LT(
        relative_error(activation(name, "test")(row({-2.0f, -0.5f, 1.0f, 3.0f})), row(values)),
        1e-6)
        << name;
  }
}

TEST(ActivationTest, UnknownNameIsAnErrorWithTheNearestOne) {
  try {
    activation("quick_gelo", "text_encoder/config.json");
    FAIL() << "accepted";
  } catch (const Failure& failure) {
    const std::string message = failure.what();
    EXPECT_NE(message.find("text_encoder/config.json"), std::string::npos);
    EXPECT_NE(message.find("quick_gelu"), std::string::npos);
  }
}

// Numbers of diffusers' get_timestep_embedding.
TEST(SinusoidTest, EqualsDiffusers) {
  const at::Tensor steps = row({0.0f, 1.0f, 499.5f, 999.0f});
  const at::Tensor flipped = sinusoidal_embedding(steps, {.width = 8});
  const at::Tensor want = row({1,
                               1,
                               1,
                               1,
                               0,
                               0,
                               0,
                               0,  //
                               0.5403023362f,
                               0.9950041771f,
                               0.9999499917f,
                               0.9999995232f,  //
                               0.8414709568f,
                               0.09983341396f,
                               0.009999833070f,
                               0.0009999998147f,  //
                               -0.9999124408f,
                               0.9506458640f,
                               0.2788639367f,
                               0.8778221607f,  //
                               0.01323153451f,
                               -0.3102780581f,
                               -0.9603306055f,
                               0.4789866805f,  //
                               0.9996498227f,
                               0.8074550629f,
                               -0.8444697857f,
                               0.5411435366f,  //
                               -0.02646075189f,
                               -0.5899291039f,
                               -0.5356031656f,
                               0.8409302235f})
                              .view({4, 8});
  EXPECT_LT(relative_error(flipped, want), 1e-5);

  const at::Tensor odd = sinusoidal_embedding(
      row({499.5f}), {.width = 7, .flip_sin_to_cos = false, .downscale_freq_shift = 1.0});
  EXPECT_LT(relative_error(odd, row({0.01323153451f, -0.9603306055f, 0.04992922768f, -0.9999124408f,
                                     0.2788639367f, 0.9987527728f, 0.0f})
                                    .view({1, 7})),
            1e-5);
}

}  // namespace
}  // namespace limner::engine::nn
