#include "engine/models/unet_2d_condition_model.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/weights/safetensors.h"
#include "parity/fixture.h"

namespace limner::engine::models {
namespace {

using parity::Fixture;
using parity::relative_error;

const char* const kFixtures[] = {"sd1",
                                 "sd2",
                                 "sdxl",
                                 "refiner",
                                 "asymmetric",
                                 "inpaint",
                                 "options",
                                 "class_table",
                                 "class_timestep",
                                 "class_identity",
                                 "class_projection",
                                 "class_simple_projection"};

UNet2DConditionModel load(const Fixture& fixture, const nn::Placement& placement = {}) {
  return UNet2DConditionModel(fixture.config(), fixture.source(placement));
}

at::Tensor UNetInput::* const kFields[] = {
    &UNetInput::sample,       &UNetInput::timesteps, &UNetInput::encoder_hidden_states,
    &UNetInput::text_embeds,  &UNetInput::time_ids,  &UNetInput::class_labels,
    &UNetInput::timestep_cond};
const char* const kFieldNames[] = {"sample",       "timesteps", "encoder_hidden_states",
                                   "text_embeds",  "time_ids",  "class_labels",
                                   "timestep_cond"};

UNetInput inputs_of(const Fixture& fixture, const std::string& when) {
  UNetInput input;
  for (std::size_t i = 0; i < std::size(kFields); ++i) {
    const std::string name = when + "." + kFieldNames[i];
    if (fixture.has(name)) input.*kFields[i] = fixture.tensor(name);
  }
  return input;
}

UNetInput row(const UNetInput& input, int64_t index) {
  UNetInput one;
  for (const auto field : kFields) {
    if ((input.*field).defined()) one.*field = (input.*field).narrow(0, index, 1);
  }
  return one;
}

class UNetParity : public testing::TestWithParam<const char*> {
 protected:
  // Threads cost these sizes more than they give, most of all on a busy machine.
  void SetUp() override { at::set_num_threads(1); }
};

TEST_P(UNetParity, EqualsDiffusers) {
  const c10::InferenceMode no_gradients;
  const Fixture fixture(std::string("unet_") + GetParam());
  const UNet2DConditionModel unet = load(fixture);
  int cases = 0;
  for (const std::string when : {"even", "odd"}) {
    if (!fixture.has(when + ".sample")) continue;
    const at::Tensor output = unet.forward(inputs_of(fixture, when));
    EXPECT_EQ(output.scalar_type(), at::kFloat);
    EXPECT_LE(relative_error(output, fixture.tensor(when + ".output")), 1e-4) << when;
    ++cases;
  }
  EXPECT_GT(cases, 0);
}

TEST_P(UNetParity, RowOfABatchEqualsItsSoloRun) {
  const c10::InferenceMode no_gradients;
  const Fixture fixture(std::string("unet_") + GetParam());
  const UNet2DConditionModel unet = load(fixture);
  const UNetInput input = inputs_of(fixture, "even");
  const at::Tensor batch = unet.forward(input);
  for (int64_t i = 0; i < batch.size(0); ++i) {
    EXPECT_LE(relative_error(unet.forward(row(input, i)), batch.narrow(0, i, 1)), 1e-5) << i;
  }
}

TEST_P(UNetParity, StaysNearInBfloat16AndLeavesItsInputsAlone) {
  const c10::InferenceMode no_gradients;
  const Fixture fixture(std::string("unet_") + GetParam());
  const UNet2DConditionModel unet =
      load(fixture, {.storage = at::kBFloat16, .compute = at::kBFloat16, .device = at::kCPU});
  const UNetInput input = inputs_of(fixture, "even");
  const at::Tensor output = unet.forward(input);
  EXPECT_LE(relative_error(output, fixture.tensor("even.output")), 0.15);
  for (std::size_t i = 0; i < std::size(kFields); ++i) {
    if (!(input.*kFields[i]).defined()) continue;
    const at::Tensor stored = fixture.tensor(std::string("even.") + kFieldNames[i]);
    EXPECT_TRUE(at::equal(input.*kFields[i], stored)) << kFieldNames[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, UNetParity, testing::ValuesIn(kFixtures),
                         [](const auto& test) { return std::string(test.param); });

TEST(UNet2DConditionModel, TellsItsTraits) {
  const Fixture sdxl("unet_sdxl");
  const auto traits = load(sdxl).traits();
  EXPECT_EQ(traits.addition_embed_type, "text_time");
  EXPECT_EQ(traits.addition_time_embed_dim, 4);
  EXPECT_EQ(traits.projection_class_embeddings_input_dim, 29);
  EXPECT_EQ(traits.sample_size, 8);
  EXPECT_EQ(traits.downsampling, 2);
  EXPECT_EQ(load(Fixture("unet_inpaint")).traits().in_channels, 9);
  EXPECT_EQ(load(Fixture("unet_class_timestep")).traits().time_cond_proj_dim, 3);
}

TEST(UNet2DConditionModel, AdapterChangesOnlyItsRows) {
  const c10::InferenceMode no_gradients;
  const Fixture fixture("unet_sd1");
  const UNet2DConditionModel unet = load(fixture);
  const UNetInput input = inputs_of(fixture, "even");
  const at::Tensor plain = unet.forward(input);
  const std::string block = "down_blocks.0.attentions.0.";
  for (const std::string layer :
       {"transformer_blocks.0.attn1.to_v", "transformer_blocks.0.attn2.to_q",
        "transformer_blocks.0.attn2.to_out.0", "transformer_blocks.0.ff.net.2"}) {
    const int64_t in = layer.ends_with("net.2") ? 16 : 4;
    nn::RowAdapters adapters(2);
    adapters.add(block + layer,
                 nn::LowRank{.down = at::ones({1, in}),
                             .up = at::arange(4).view({4, 1}).to(at::kFloat),
                             .scale = 0.5},
                 std::vector<float>{0, 1});
    const at::Tensor adapted = unet.forward(input, adapters);
    EXPECT_LE(relative_error(adapted[0], plain[0]), 1e-6) << layer;
    EXPECT_GE(relative_error(adapted[1], plain[1]), 1e-3) << layer;
  }
}

// What is wrong with an input comes back as a sentence naming it.
TEST(UNet2DConditionModel, RefusesInputsOfOtherShapes) {
  const c10::InferenceMode no_gradients;
  const auto message = [](const char* name, const std::function<void(UNetInput&)>& spoil) {
    const Fixture fixture(name);
    UNetInput input = inputs_of(fixture, "even");
    spoil(input);
    try {
      load(fixture).forward(input);
    } catch (const Failure& failure) {
      return failure.error().message;
    }
    return std::string("no error");
  };
  const auto contains = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos ? std::string() : text;
  };
  EXPECT_EQ("", contains(message("unet_inpaint",
                                 [](UNetInput& in) { in.sample = in.sample.narrow(1, 0, 4); }),
                         "want sample [any, 9, any, any], got [2, 4, 8, 6]"));
  EXPECT_EQ(
      "", contains(message("unet_sd1",
                           [](UNetInput& in) { in.encoder_hidden_states = at::zeros({2, 7, 5}); }),
                   "want encoder_hidden_states [2, any, 6], got [2, 7, 5]"));
  EXPECT_EQ("", contains(message("unet_sdxl", [](UNetInput& in) { in.time_ids.reset(); }),
                         "want time_ids [2, any], got none"));
  EXPECT_EQ("", contains(message("unet_sdxl",
                                 [](UNetInput& in) { in.time_ids = in.time_ids.narrow(1, 0, 5); }),
                         "want text_embeds and time_ids of 29 values together, got 5 + 5 x 4"));
  EXPECT_EQ("", contains(message("unet_class_table",
                                 [](UNetInput& in) { in.class_labels = at::full({2}, 10); }),
                         "want class labels of 0 to 9"));
  EXPECT_EQ(
      "", contains(message("unet_class_projection", [](UNetInput& in) { in.class_labels.reset(); }),
                   "want class_labels, got none"));
}

nlohmann::json config_of(const std::string& name) {
  const auto file = std::filesystem::path(LIMNER_SOURCE_DIR) / "tests/parity/fixtures/modules" /
                    name / "config.json";
  return nlohmann::json::parse(std::ifstream(file));
}

std::string failure_of(const nlohmann::json& config, const Fixture& fixture) {
  try {
    UNet2DConditionModel(weights::Config(config, "unet/config.json"), fixture.source());
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kInvalidModel);
    return failure.error().message;
  }
  return "no error";
}

TEST(UNet2DConditionModel, RefusesConfigsItCannotCompute) {
  const Fixture fixture("unet_sd1");
  const auto with = [&](const char* key, nlohmann::json value) {
    nlohmann::json config = config_of("unet_sd1");
    config[key] = std::move(value);
    return failure_of(config, fixture);
  };
  EXPECT_EQ(with("act_fn", "silu"), "no error");
  const std::map<std::string, std::vector<nlohmann::json>> bad = {
      {"block_out_channels",
       {nlohmann::json::array(), {4, 4}, {4, 4, -8}, {4, 4, 0}, {4, 4, 9}, {4, 4, 1e12}, "4"}},
      {"attention_head_dim", {0, -2, 3, {2, 2}, 1e18}},
      {"num_attention_heads", {0, 3}},
      {"layers_per_block", {0, -1, 1000000000, {2, 2}}},
      {"transformer_layers_per_block", {-1, 1000000000, {1, 1}, {1, 1, "x"}, "1"}},
      {"down_block_types", {{"AttnDownBlock2D", "DownBlock2D", "DownBlock2D"}, {"DownBlock2D"}}},
      {"mid_block_type", {"UNetMidBlock2DSimpleCrossAttn"}},
      {"norm_num_groups", {0, 3, 1000000}},
      {"cross_attention_dim", {0, {6, 6, 7}}},
      {"conv_in_kernel", {0, 2, 1001}},
      {"sample_size", {0, -8, {8, 8, 8}}},
      {"in_channels", {0, 1000000000}},
      {"freq_shift", {2}},
      {"mid_block_scale_factor", {0}},
      {"act_fn", {"sine"}},
      {"class_embed_type", {"surprise", "projection"}},
      {"addition_embed_type", {"text", "text_time"}},
      {"resnet_time_scale_shift", {"spatial"}},
      {"dual_cross_attention", {true}},
      {"encoder_hid_dim", {768}},
      {"time_embedding_type", {"fourier"}},
      {"attention_type", {"gated"}},
      {"only_cross_attention", {"no", {true}}},
      {"a_key_of_tomorrow", {1}},
  };
  for (const auto& [key, values] : bad) {
    for (const auto& value : values) {
      const std::string message = with(key.c_str(), value);
      EXPECT_NE(message.find(key == "act_fn" ? "sine" : key), std::string::npos)
          << key << " = " << value << ": " << message;
    }
  }
}

TEST(UNet2DConditionModel, NamesTheTensorThatDoesNotFit) {
  const Fixture fixture("unet_sd1");
  nlohmann::json config = config_of("unet_sd1");
  config["cross_attention_dim"] = 7;
  std::string message = failure_of(config, fixture);
  EXPECT_NE(message.find("attn2.to_k.weight"), std::string::npos) << message;

  config = config_of("unet_sd1");
  config["mid_block_type"] = "UNetMidBlock2D";
  message = failure_of(config, fixture);
  EXPECT_NE(message.find("mid_block.attentions.0."), std::string::npos) << message;

  config = config_of("unet_sd1");
  config["num_class_embeds"] = 3;
  message = failure_of(config, fixture);
  EXPECT_NE(message.find("class_embedding.weight"), std::string::npos) << message;
}

// Checkpoints of the first diffusers versions have no mid_block_type at all.
TEST(UNet2DConditionModel, MissingMidBlockTypeIsDecidedByTheTensors) {
  nlohmann::json config = config_of("unet_sd1");
  config.erase("mid_block_type");
  EXPECT_EQ(failure_of(config, Fixture("unet_sd1")), "no error");
}

TEST(UNet2DConditionModel, NumAttentionHeadsGoesBeforeTheMisnamedKey) {
  const c10::InferenceMode no_gradients;
  const Fixture fixture("unet_sd1");
  nlohmann::json config = config_of("unet_sd1");
  config["num_attention_heads"] = config["attention_head_dim"];
  config["attention_head_dim"] = 1;
  const UNet2DConditionModel unet(weights::Config(config, "unet"), fixture.source());
  const at::Tensor output = unet.forward(inputs_of(fixture, "even"));
  EXPECT_LE(relative_error(output, fixture.tensor("even.output")), 1e-4);
}

}  // namespace
}  // namespace limner::engine::models
