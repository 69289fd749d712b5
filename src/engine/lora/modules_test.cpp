#include "engine/lora/modules.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "engine/lora/attach.h"
#include "engine/lora/bake.h"
#include "engine/lora/testing.h"
#include "engine/nn/layers.h"
#include "parity/fixture.h"

namespace limner::engine::lora {
namespace {

using parity::relative_error;
using testing::Tensors;
using weights::testing::TemporaryFolder;

const char* const kLayer = "mid_block.attentions.0.proj_in";

// A layer, an adapter for it as LyCORIS writes it, and what LyCORIS makes of the two.
class LycorisParity : public ::testing::TestWithParam<const char*> {
 protected:
  LycorisParity() {
    const auto file = std::filesystem::path(LIMNER_SOURCE_DIR) / "tests/parity/fixtures/adapters" /
                      (std::string(GetParam()) + ".safetensors");
    Tensors adapter;
    for (auto& [name, tensor] : testing::read_tensors(file)) {
      if (name == "weight") weight_ = tensor;
      if (name == "difference") difference_ = tensor;
      if (name.starts_with("adapter.")) {
        adapter["lora_unet_mid_block_attentions_0_proj_in." + name.substr(8)] = tensor;
      }
    }
    at::manual_seed(3);
    bias_ = at::randn({weight_.size(0)});
    Tensors unet = {{std::string(kLayer) + ".weight", weight_},
                    {std::string(kLayer) + ".bias", bias_}};
    layers_.emplace(Networks{{"unet", testing::network(folder_, "unet", unet)}});
    file_ = AdapterFile::read(testing::write_tensors(folder_.path() / "a.safetensors", adapter))
                .value_or_throw();
  }

  at::Tensor product(const at::Tensor& x, const at::Tensor& weight) const {
    if (weight.dim() == 2) return at::linear(x, weight, bias_);
    return at::conv2d(x, weight, bias_, {2, 2}, {1, 1});
  }
  at::Tensor layer(const at::Tensor& x, const nn::RowAdapters& adapters) const {
    const nn::TensorSource source = parity::source_of(
        {{std::string(kLayer) + ".weight", weight_}, {std::string(kLayer) + ".bias", bias_}});
    if (weight_.dim() == 2) {
      return nn::Linear(source.at(kLayer), {.in = weight_.size(1), .out = weight_.size(0)})(
          x, adapters);
    }
    return nn::Conv2d(source.at(kLayer),
                      {.in = weight_.size(1), .out = weight_.size(0), .stride = 2})(x, adapters);
  }
  at::Tensor input() const {
    if (weight_.dim() == 2) return at::randn({3, 5, weight_.size(1)});
    return at::randn({3, weight_.size(1), 6, 7}).contiguous(at::MemoryFormat::ChannelsLast);
  }

  const c10::InferenceMode no_gradients_;
  TemporaryFolder folder_;
  at::Tensor weight_, difference_, bias_;
  std::optional<ModelLayers> layers_;
  std::shared_ptr<const AdapterFile> file_;
};

TEST_P(LycorisParity, BakedWeightEqualsLycoris) {
  const Baker baker(*layers_, {{file_, AdapterScales::all(0.7)}});
  const auto merged = baker("unet", std::string(kLayer) + ".weight", weight_);
  ASSERT_TRUE(merged.has_value());
  EXPECT_LE(relative_error(*merged, weight_ + 0.7 * difference_), 1e-5);
  EXPECT_FALSE(baker("unet", "conv_in.weight", weight_).has_value());
  EXPECT_FALSE(baker("unet", std::string(kLayer) + ".bias", bias_).has_value());
}

TEST_P(LycorisParity, RowsDrawWithTheirOwnWeightsWhatTheMergedLayerDraws) {
  const auto attached = attach(*file_, *layers_, {});
  EXPECT_GT(attached->memory_bytes, 0u);
  const AdapterList none, half = {{attached, AdapterScales::all(0.5)}},
                          more = {{attached, AdapterScales::all(-1.3)}};
  const AdapterList* const rows[] = {&half, &none, &more};
  const at::Tensor x = input();
  const at::Tensor y = layer(x, row_adapters("unet", rows));
  const double weights[] = {0.5, 0.0, -1.3};
  for (int64_t row = 0; row < 3; ++row) {
    const at::Tensor want = product(x.narrow(0, row, 1), weight_ + weights[row] * difference_);
    EXPECT_LE(relative_error(y.narrow(0, row, 1), want), 2e-5) << row;
  }
  EXPECT_TRUE(y[1].equal(layer(x, nn::no_adapters())[1]));
}

TEST_P(LycorisParity, OneRowOfAdaptersServesEveryRowOfTheInput) {
  const AdapterList list = {{attach(*file_, *layers_, {}), AdapterScales::all(1.0)}};
  const AdapterList* const one[] = {&list};
  const at::Tensor x = input();
  EXPECT_LE(relative_error(layer(x, row_adapters("unet", one)), product(x, weight_ + difference_)),
            2e-5);
}

INSTANTIATE_TEST_SUITE_P(Kinds, LycorisParity,
                         ::testing::Values("lora", "lora_conv", "lora_mid", "dora_out", "dora_in",
                                           "dora_conv_in", "loha", "loha_conv", "loha_tucker",
                                           "dora_loha", "lokr", "lokr_both", "lokr_whole",
                                           "lokr_conv", "lokr_tucker", "glora", "glora_conv",
                                           "ia3_out", "ia3_in", "ia3_conv", "oft",
                                           "oft_conv_rescaled", "boft", "boft_rescaled", "full"),
                         [](const auto& test) { return std::string(test.param); });

// The same against PEFT: files under its names, with its configuration beside them, and what its
// layer computes (also with `bias`) before and after merging.
class PeftParity : public ::testing::TestWithParam<const char*> {
 protected:
  PeftParity() {
    const auto file = std::filesystem::path(LIMNER_SOURCE_DIR) / "tests/parity/fixtures/adapters" /
                      (std::string(GetParam()) + ".safetensors");
    const auto opened = weights::SafetensorsFile::open(file).value_or_throw();
    folder_.write("adapter_config.json", opened.metadata().find("adapter_config")->second);
    Tensors adapter, unet;
    for (auto& [name, tensor] : testing::read_tensors(file)) {
      if (name.starts_with("adapter.")) {
        adapter["base_model.model." + std::string(kLayer) + "." + name.substr(8)] = tensor;
      } else if (name == "weight" || name == "bias") {
        unet[std::string(kLayer) + "." + name] = tensor;
      }
      fixture_[name] = tensor;
    }
    layers_.emplace(Networks{{"unet", testing::network(folder_, "unet", unet)}});
    file_ = AdapterFile::read(
                testing::write_tensors(folder_.path() / "adapter_model.safetensors", adapter))
                .value_or_throw();
  }
  const c10::InferenceMode no_gradients_;
  TemporaryFolder folder_;
  Tensors fixture_;
  std::optional<ModelLayers> layers_;
  std::shared_ptr<const AdapterFile> file_;
};

TEST_P(PeftParity, BakedWeightAndBiasEqualPeft) {
  const Baker baker(*layers_, {{file_, AdapterScales::all(1.0)}});
  for (const std::string part : {"weight", "bias"}) {
    if (!fixture_.contains(part)) continue;
    const at::Tensor own = fixture_.at(part);
    const at::Tensor merged =
        baker("unet", std::string(kLayer) + "." + part, own).value_or(own.clone());
    EXPECT_LE(relative_error(merged, fixture_.at("merged_" + part)), 1e-5) << part;
  }
}

TEST_P(PeftParity, TheLayerPutsOutWhatPeftsDoes) {
  const auto attached = attach(*file_, *layers_, {});
  const AdapterList list = {{attached, AdapterScales::all(1.0)}};
  const AdapterList* const one[] = {&list};
  const nn::RowAdapters adapters = row_adapters("unet", one);
  const at::Tensor weight = fixture_.at("weight"), x = fixture_.at("x");
  const nn::TensorSource source =
      parity::source_of({{std::string(kLayer) + ".weight", weight},
                         {std::string(kLayer) + ".bias", fixture_.at("bias")}});
  const at::Tensor y =
      weight.dim() == 2
          ? nn::Linear(source.at(kLayer), {.in = weight.size(1), .out = weight.size(0)})(x,
                                                                                         adapters)
          : nn::Conv2d(source.at(kLayer), {.in = weight.size(1),
                                           .out = weight.size(0),
                                           .kernel = weight.size(2),
                                           .padding = weight.size(2) / 2})(x, adapters);
  EXPECT_LE(relative_error(y, fixture_.at("y")), 2e-5);
}

INSTANTIATE_TEST_SUITE_P(Kinds, PeftParity,
                         ::testing::Values("peft_lora_bias", "peft_dora", "peft_dora_conv",
                                           "peft_ia3_out", "peft_ia3_in", "peft_ia3_conv",
                                           "peft_oft", "peft_oft_shared", "peft_oft_exact",
                                           "peft_oft_conv", "peft_boft", "peft_boft_butterfly",
                                           "peft_loha", "peft_lokr"),
                         [](const auto& test) { return std::string(test.param); });

// --- what one fixture does not show ---

struct OneLayer {
  explicit OneLayer(at::Tensor w, bool with_bias = true) : weight(std::move(w)) {
    Tensors unet = {{std::string(kLayer) + ".weight", weight}};
    if (with_bias) unet[std::string(kLayer) + ".bias"] = at::zeros({weight.size(0)});
    layers.emplace(Networks{{"unet", testing::network(folder, "unet", unet)}});
  }
  Result<std::shared_ptr<const AdapterFile>> file(const Tensors& parts) const {
    Tensors named;
    for (const auto& [part, tensor] : parts) {
      named["unet." + std::string(kLayer) + "." + part] = tensor;
    }
    return AdapterFile::read(testing::write_tensors(folder.path() / "a.safetensors", named));
  }
  at::Tensor merged(const Tensors& parts) const {
    const Baker baker(*layers, {{file(parts).value_or_throw(), AdapterScales::all(1.0)}});
    return *baker("unet", std::string(kLayer) + ".weight", weight);
  }
  std::string refusal(const Tensors& parts) const {
    try {
      attach(*file(parts).value_or_throw(), *layers, {});
    } catch (const Failure& failure) {
      return failure.what();
    }
    return "no error";
  }
  TemporaryFolder folder;
  at::Tensor weight;
  std::optional<ModelLayers> layers;
};

TEST(Modules, PeftMagnitudeIsPerOutputWhateverItsShape) {
  at::manual_seed(1);
  const OneLayer model(at::randn({4, 4, 3, 3}));
  const at::Tensor down = at::randn({2, 4, 3, 3}), up = at::randn({4, 2, 1, 1});
  const at::Tensor magnitude = at::rand({1, 4, 1, 1}) + 1;
  const at::Tensor got = model.merged(
      {{"lora_A.weight", down}, {"lora_B.weight", up}, {"lora_magnitude_vector", magnitude}});
  const at::Tensor changed =
      model.weight + up.view({4, 2}).matmul(down.view({2, -1})).view(model.weight.sizes());
  const at::Tensor norm = changed.flatten(1).square().sum(1).sqrt();
  EXPECT_LE(relative_error(got, changed * (magnitude.view(-1) / norm).view({4, 1, 1, 1})), 1e-5);
}

TEST(Modules, LinearMatricesFitAOneByOneConvolutionAndTheOtherWayRound) {
  at::manual_seed(2);
  const at::Tensor down = at::randn({2, 5}), up = at::randn({4, 2});
  const OneLayer convolution(at::randn({4, 5, 1, 1})), linear(at::randn({4, 5}));
  const at::Tensor product = up.matmul(down);
  EXPECT_LE(relative_error(convolution.merged({{"lora_A.weight", down}, {"lora_B.weight", up}}),
                           convolution.weight + product.view({4, 5, 1, 1})),
            1e-6);
  EXPECT_LE(relative_error(linear.merged({{"lora_A.weight", down.view({2, 5, 1, 1})},
                                          {"lora_B.weight", up.view({4, 2, 1, 1})}}),
                           linear.weight + product),
            1e-6);
}

TEST(Modules, BiasDifferenceIsAddedAndCannotBeMergedWhereThereIsNoBias) {
  const Tensors parts = {{"diff", at::ones({2, 3})}, {"diff_b", at::ones({2}) * 4}};
  const OneLayer model(at::zeros({2, 3})), without(at::zeros({2, 3}), false);
  const Baker baker(*model.layers, {{*model.file(parts), AdapterScales::all(0.5)}});
  EXPECT_TRUE(
      baker("unet", std::string(kLayer) + ".bias", at::ones({2}))->equal(at::ones({2}) * 3));
  EXPECT_THROW(Baker(*without.layers, {{*without.file(parts), AdapterScales::all(0.5)}}), Failure);

  const AdapterList list = {
      {attach(**without.file(parts), *without.layers, {}), AdapterScales::all(0.5)}};
  const AdapterList* const one[] = {&list};
  const nn::TensorSource source =
      parity::source_of({{std::string(kLayer) + ".weight", without.weight}});
  const nn::Linear layer(source.at(kLayer), {.in = 3, .out = 2, .bias = false});
  EXPECT_TRUE(
      layer(at::ones({1, 1, 3}), row_adapters("unet", one)).equal(at::full({1, 1, 2}, 3.5)));
}

TEST(Modules, AShapeThatDoesNotFitNamesLayerWantAndGot) {
  const OneLayer model(at::zeros({4, 6}));
  const std::string narrow =
      model.refusal({{"lora_A.weight", at::zeros({2, 5})}, {"lora_B.weight", at::zeros({4, 2})}});
  EXPECT_NE(narrow.find("mid_block.attentions.0.proj_in"), std::string::npos) << narrow;
  EXPECT_NE(narrow.find("want [any, 6], got [2, 5]"), std::string::npos) << narrow;
  const std::string ranks =
      model.refusal({{"lora_A.weight", at::zeros({2, 6})}, {"lora_B.weight", at::zeros({4, 3})}});
  EXPECT_NE(ranks.find("want [4, 2], got [4, 3]"), std::string::npos) << ranks;
  EXPECT_NE(model.refusal({{"oft_blocks", at::zeros({2, 3, 3})}}).find("n * m = 4"),
            std::string::npos);
  EXPECT_NE(model.refusal({{"lokr_w1", at::zeros({3, 2})}, {"lokr_w2", at::zeros({2, 3})}})
                .find("divisors of [4, 6]"),
            std::string::npos);
}

// The old form of PEFT's OFT, from its definition: W' = Q^T W, Q = (I - S)(I + S)^-1 of blocks of
// S.
TEST(Modules, OldPeftRotationsMixTheOutputs) {
  at::manual_seed(4);
  const OneLayer model(at::randn({6, 5}));
  const at::Tensor blocks = at::randn({2, 3, 3});
  const at::Tensor skew = (blocks - blocks.transpose(1, 2)) * 0.5;
  const at::Tensor q = at::bmm(at::eye(3) - skew, at::linalg_inv(at::eye(3) + skew));
  const at::Tensor want = at::block_diag({q[0], q[1]}).t().matmul(model.weight);
  EXPECT_LE(relative_error(model.merged({{"oft_r", blocks}}), want), 1e-5);
}

// --- norms ---

TEST(Norms, RowsAddTheirOwnDifferencesToWeightAndBias) {
  const c10::InferenceMode no_gradients;
  at::manual_seed(5);
  const std::string name = "mid_block.attentions.0.norm";
  const at::Tensor weight = at::randn({8}), bias = at::randn({8});
  const at::Tensor dw = at::randn({8}), db = at::randn({8});
  const TemporaryFolder folder;
  const ModelLayers layers(
      {{"unet",
        testing::network(folder, "unet", {{name + ".weight", weight}, {name + ".bias", bias}})}});
  const nn::TensorSource source =
      parity::source_of({{name + ".weight", weight}, {name + ".bias", bias}});
  for (const auto& [w, b] : {std::pair("w_norm", "b_norm"), std::pair("diff", "diff_b")}) {
    const auto file =
        AdapterFile::read(testing::write_tensors(
                              folder.path() / "a.safetensors",
                              {{"lora_unet_mid_block_attentions_0_norm." + std::string(w), dw},
                               {"lora_unet_mid_block_attentions_0_norm." + std::string(b), db}}))
            .value_or_throw();
    const auto attached = attach(*file, layers, {});
    const AdapterList none, half = {{attached, AdapterScales::all(0.5)}},
                            more = {{attached, AdapterScales::all(-2.0)}};
    const AdapterList* const rows[] = {&none, &half, &more};
    const nn::RowAdapters adapters = row_adapters("unet", rows);
    const double scales[] = {0.0, 0.5, -2.0};
    const at::Tensor x = at::randn({3, 8, 4, 4}), t = at::randn({3, 5, 8});
    const nn::GroupNorm group(source.at(name), {.channels = 8, .groups = 4});
    const nn::LayerNorm layer(source.at(name), 8);
    for (int64_t row = 0; row < 3; ++row) {
      const double scale = scales[row];
      const at::Tensor want =
          at::group_norm(x.narrow(0, row, 1), 4, weight + scale * dw, bias + scale * db, 1e-5);
      EXPECT_LE(relative_error(group(x, adapters).narrow(0, row, 1), want), 2e-5);
      EXPECT_LE(relative_error(group.silu(x, adapters).narrow(0, row, 1), at::silu(want)), 2e-5);
      EXPECT_LE(relative_error(layer(t, adapters).narrow(0, row, 1),
                               at::layer_norm(t.narrow(0, row, 1), {8}, weight + scale * dw,
                                              bias + scale * db, 1e-5)),
                2e-5);
    }
    const Baker baker(layers, {{file, AdapterScales::all(0.5)}});
    EXPECT_LE(relative_error(*baker("unet", name + ".weight", weight), weight + 0.5 * dw), 1e-6);
    EXPECT_LE(relative_error(*baker("unet", name + ".bias", bias), bias + 0.5 * db), 1e-6);
  }
  const auto lora = AdapterFile::read(testing::write_tensors(
                                          folder.path() / "b.safetensors",
                                          {{"unet." + name + ".lora_A.weight", at::ones({1, 8})},
                                           {"unet." + name + ".lora_B.weight", at::ones({8, 1})}}))
                        .value_or_throw();
  EXPECT_THROW(attach(*lora, layers, {}), Failure);
}

}  // namespace
}  // namespace limner::engine::lora
