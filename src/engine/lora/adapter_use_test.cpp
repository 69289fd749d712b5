#include "engine/lora/adapter_use.h"

#include <gtest/gtest.h>

namespace limner::engine::lora {
namespace {

TEST(AdapterUse, TheWeightFollowsTheLastColon) {
  EXPECT_EQ(parse_adapter_use("style")->name, "style");
  EXPECT_EQ(parse_adapter_use("style")->scales, AdapterScales::all(1.0));
  EXPECT_EQ(parse_adapter_use("a/b:c.safetensors:0.25")->name, "a/b:c.safetensors");
  EXPECT_EQ(parse_adapter_use("style:-0.5")->scales, AdapterScales::all(-0.5));
  EXPECT_EQ(parse_adapter_use("a:b/c.safetensors")->name, "a:b/c.safetensors");
}

TEST(AdapterUse, TheLongFormWeighsNetworksAndBlocks) {
  const auto use = parse_adapter_use("style:unet=0.8,te=0.5,blocks=down:0.5/down.1:2/mid:0");
  ASSERT_TRUE(use.ok()) << use.error().message;
  EXPECT_EQ(use->name, "style");
  const AdapterScales& scales = use->scales;
  EXPECT_DOUBLE_EQ(scales.of("text_encoder", "text_model.encoder.layers.0.mlp.fc1"), 0.5);
  EXPECT_DOUBLE_EQ(scales.of("text_encoder_2", "x"), 0.5);
  EXPECT_DOUBLE_EQ(scales.of("unet", "down_blocks.0.resnets.0.conv1"), 0.4);
  EXPECT_DOUBLE_EQ(scales.of("unet", "down_blocks.1.resnets.0.conv1"), 1.6);
  EXPECT_DOUBLE_EQ(scales.of("unet", "down_blocks.10.resnets.0.conv1"), 0.4);
  EXPECT_DOUBLE_EQ(scales.of("unet", "mid_block.attentions.0.proj_in"), 0.0);
  EXPECT_DOUBLE_EQ(scales.of("unet", "up_blocks.0.resnets.0.conv1"), 0.8);
  EXPECT_DOUBLE_EQ(scales.of("unet", "conv_in"), 0.8);
  EXPECT_DOUBLE_EQ(parse_adapter_scales("te2=0.1,te=0.5")->text_encoder_2, 0.1);
}

TEST(AdapterUse, WhatCannotBeReadIsRefusedInASentence) {
  for (const char* text : {"style:", "style:abc", "style:1e9", "style:nan", "style:inf", ":0.5", "",
                           "style:unet=", "style:clip=1", "style:unet=1,,te=1",
                           "style:blocks=side:1", "style:blocks=down.x:1", "style:blocks=down"}) {
    const auto use = parse_adapter_use(text);
    ASSERT_FALSE(use.ok()) << text;
    EXPECT_EQ(use.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(use.error().message.find("want"), std::string::npos) << use.error().message;
  }
}

}  // namespace
}  // namespace limner::engine::lora
