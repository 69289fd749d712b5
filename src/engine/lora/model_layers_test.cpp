#include "engine/lora/model_layers.h"

#include <gtest/gtest.h>

#include "engine/lora/report.h"
#include "engine/lora/testing.h"

namespace limner::engine::lora {
namespace {

using testing::Tensors;

class ModelLayersTest : public ::testing::Test {
 protected:
  // Two levels with one resnet each and attention in the second, as SDXL has it.
  ModelLayersTest() {
    Tensors unet;
    const auto layer = [&](const std::string& name) { unet[name + ".weight"] = at::zeros({2, 2}); };
    const auto conv = [&](const std::string& name) {
      unet[name + ".weight"] = at::zeros({2, 2, 3, 3});
      unet[name + ".bias"] = at::zeros({2});
    };
    for (const char* name : {"conv_in", "conv_out", "down_blocks.0.resnets.0.conv1",
                             "down_blocks.0.downsamplers.0.conv", "down_blocks.1.resnets.0.conv1",
                             "mid_block.resnets.0.conv2", "up_blocks.0.resnets.0.conv1",
                             "up_blocks.0.resnets.1.conv1", "up_blocks.0.upsamplers.0.conv",
                             "up_blocks.1.resnets.0.conv1", "up_blocks.1.resnets.1.conv1"}) {
      conv(name);
    }
    for (const char* block : {"down_blocks.1.attentions.0", "mid_block.attentions.0",
                              "up_blocks.0.attentions.0", "up_blocks.0.attentions.1"}) {
      unet[std::string(block) + ".norm.weight"] = at::ones({2});
      layer(std::string(block) + ".transformer_blocks.0.attn1.to_q");
      layer(std::string(block) + ".transformer_blocks.0.attn1.to_out.0");
    }
    layer("time_embedding.linear_1");
    Tensors text = {{"text_model.embeddings.token_embedding.weight", at::zeros({9, 2})},
                    {"text_model.encoder.layers.0.mlp.fc1.weight", at::zeros({2, 2})}};
    Tensors text_2 = {{"encoder.layers.0.mlp.fc1.weight", at::zeros({2, 2})},
                      {"text_projection.weight", at::zeros({2, 2})}};
    layers_.emplace(Networks{{"unet", testing::network(folder_, "unet", unet)},
                             {"text_encoder", testing::network(folder_, "te", text)},
                             {"text_encoder_2", testing::network(folder_, "te2", text_2)}});
  }
  std::string found(const std::string& spelled) const {
    const Layer* layer = layers_->find(spelled);
    return layer == nullptr ? "none" : layer->component + ":" + layer->name;
  }
  weights::testing::TemporaryFolder folder_;
  std::optional<ModelLayers> layers_;
};

TEST_F(ModelLayersTest, EverySpellingOfALayerFindsIt) {
  const std::string to_out = "unet:down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0";
  for (const char* spelled :
       {"lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0",
        "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_out_0",
        "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0",
        "lora_unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out",
        "diffusion_model.input_blocks.3.1.transformer_blocks.0.attn1.to_out.0"}) {
    EXPECT_EQ(found(spelled), to_out) << spelled;
  }
  EXPECT_EQ(found("lora_te1_text_model_encoder_layers_0_mlp_fc1"),
            "text_encoder:text_model.encoder.layers.0.mlp.fc1");
  EXPECT_EQ(found("lora_te_text_model_encoder_layers_0_mlp_fc1"),
            "text_encoder:text_model.encoder.layers.0.mlp.fc1");
  EXPECT_EQ(found("lora_te2_text_model_encoder_layers_0_mlp_fc1"),
            "text_encoder_2:encoder.layers.0.mlp.fc1");
  EXPECT_EQ(found("text_encoder_2.text_model.encoder.layers.0.mlp.fc1"),
            "text_encoder_2:encoder.layers.0.mlp.fc1");
  EXPECT_EQ(found("lora_te2_text_projection"), "text_encoder_2:text_projection");
}

// The block names of single-file checkpoints, by hand.
TEST_F(ModelLayersTest, BlockNamesOfSingleFileCheckpointsFindTheirLayers) {
  const std::pair<const char*, const char*> names[] = {
      {"lora_unet_input_blocks_0_0", "unet:conv_in"},
      {"lora_unet_input_blocks_1_0_in_layers_2", "unet:down_blocks.0.resnets.0.conv1"},
      {"lora_unet_input_blocks_2_0_op", "unet:down_blocks.0.downsamplers.0.conv"},
      {"lora_unet_input_blocks_3_0_in_layers_2", "unet:down_blocks.1.resnets.0.conv1"},
      {"lora_unet_middle_block_0_out_layers_3", "unet:mid_block.resnets.0.conv2"},
      {"lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q",
       "unet:mid_block.attentions.0.transformer_blocks.0.attn1.to_q"},
      {"lora_unet_output_blocks_1_2_conv", "unet:up_blocks.0.upsamplers.0.conv"},
      {"lora_unet_output_blocks_2_0_in_layers_2", "unet:up_blocks.1.resnets.0.conv1"},
      {"lora_unet_time_embed_0", "unet:time_embedding.linear_1"},
      {"lora_unet_out_2", "unet:conv_out"}};
  for (const auto& [spelled, want] : names) EXPECT_EQ(found(spelled), want) << spelled;
}

TEST_F(ModelLayersTest, NormsAreLayersEmbeddingsAreNoneAndAWrongNameHasANearOne) {
  EXPECT_EQ(found("lora_unet_mid_block_attentions_0_norm"), "unet:mid_block.attentions.0.norm");
  EXPECT_EQ(found("lora_unet_middle_block_1_norm"), "unet:mid_block.attentions.0.norm");
  EXPECT_EQ(found("text_encoder.text_model.embeddings.token_embedding"), "none");
  EXPECT_EQ(layers_->near("unet.conv_inn"), " (did you mean unet.conv_in?)");
}

}  // namespace
}  // namespace limner::engine::lora
