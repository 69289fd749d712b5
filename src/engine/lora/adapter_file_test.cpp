#include "engine/lora/adapter_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "engine/lora/inspect.h"
#include "engine/lora/key_spelling.h"
#include "engine/lora/testing.h"

namespace limner::engine::lora {
namespace {

using testing::Tensors;
using weights::testing::TemporaryFolder;

class AdapterFileTest : public ::testing::Test {
 protected:
  Result<std::shared_ptr<const AdapterFile>> read(
      const Tensors& tensors, const std::map<std::string, std::string>& metadata = {}) {
    return AdapterFile::read(
        testing::write_tensors(folder_.path() / "style.safetensors", tensors, metadata));
  }
  std::string refusal(const Tensors& tensors,
                      const std::map<std::string, std::string>& metadata = {}) {
    const auto file = read(tensors, metadata);
    return file.ok() ? "no error" : file.error().message;
  }
  TemporaryFolder folder_;
  const at::Tensor down_ = at::ones({2, 3}), up_ = at::ones({4, 2});
};

TEST_F(AdapterFileTest, EverySpellingGivesTheSameModule) {
  const std::pair<const char*, const char*> spellings[] = {
      {".lora_down.weight", ".lora_up.weight"},
      {".lora_A.weight", ".lora_B.weight"},
      {".lora_A.default.weight", ".lora_B.default.weight"},
      {".lora.down.weight", ".lora.up.weight"},
      {"_lora.down.weight", "_lora.up.weight"},
      {".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"}};
  for (const auto& [down, up] : spellings) {
    const auto file =
        read({{std::string("unet.x.to_q") + down, down_}, {std::string("unet.x.to_q") + up, up_}});
    ASSERT_TRUE(file.ok()) << file.error().message;
    ASSERT_EQ((*file)->modules().size(), 1u) << down;
    const Module& module = (*file)->modules().front();
    EXPECT_EQ(module.name, "unet.x.to_q");
    EXPECT_EQ(module.kind, Kind::kLora);
    EXPECT_EQ(module.rank(), 2);
    EXPECT_EQ(module.scale(), 1.0);
  }
}

TEST_F(AdapterFileTest, ProcessorsAndPeftsWrapperAreTakenOffTheName) {
  EXPECT_EQ(
      split_key("unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora."
                "down.weight")
          ->layer,
      "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out");
  EXPECT_EQ(split_key("base_model.model.conv_in.lora_A.weight")->layer, "conv_in");
  EXPECT_FALSE(split_key("model.diffusion_model.out.2.bias").has_value());
}

TEST_F(AdapterFileTest, AlphaIsReadInAnyTypeAndDividesByTheRank) {
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16, at::kLong}) {
    const auto file = read({{"a.lora_down.weight", down_},
                            {"a.lora_up.weight", up_},
                            {"a.alpha", at::full({}, 3, type)}});
    ASSERT_TRUE(file.ok()) << file.error().message;
    EXPECT_EQ((*file)->modules().front().scale(), 1.5);
  }
}

TEST_F(AdapterFileTest, ByItsHeaderAFileOfAnySizeIsDescribed) {
  constexpr std::uint64_t kRows = std::uint64_t{1} << 40;
  constexpr std::uint64_t kBytes = kRows * 2 * 4;  // 8 TiB, a hole in the file
  const std::string header =
      fmt::format(R"({{"a.alpha":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}},)"
                  R"("a.lora_down.weight":{{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]}},)"
                  R"("a.lora_up.weight":{{"dtype":"F32","shape":[{},2],"data_offsets":[28,{}]}}}})",
                  kRows, 28 + kBytes);
  const auto file = folder_.path() / "wide.safetensors";
  const std::string head =
      weights::testing::raw_safetensors(header, std::string("\0\0\x40\x40", 4));
  std::ofstream(file, std::ios::binary) << head;
  std::error_code failed;
  std::filesystem::resize_file(file, head.size() + 24 + kBytes, failed);
  if (failed) GTEST_SKIP() << "no files of this size here: " << failed.message();

  const auto described = AdapterFile::read(file, AdapterFile::Depth::kHeader);
  ASSERT_TRUE(described.ok()) << described.error().message;
  EXPECT_EQ((*described)->modules().at(0).alpha, 3.0);
  EXPECT_EQ((*described)->modules().at(0).rank(), 2);
  const auto inspected = inspect_adapter(file, /*hash=*/false);
  ASSERT_TRUE(inspected.ok()) << inspected.error().message;
  EXPECT_EQ(inspected->kinds, (std::map<std::string, std::size_t>{{"LoRA", 1}}));
  EXPECT_FALSE(AdapterFile::read(file).ok()) << "so it is not the header alone that is read";
}

TEST_F(AdapterFileTest, PeftsHeaderGivesAlphaPatternsAndRankStabilisation) {
  const Tensors tensors = {
      {"unet.a.to_q.lora_A.weight", down_},    {"unet.a.to_q.lora_B.weight", up_},
      {"unet.a.to_k.lora_A.weight", down_},    {"unet.a.to_k.lora_B.weight", up_},
      {"text_encoder.b.lora_A.weight", down_}, {"text_encoder.b.lora_B.weight", up_}};
  const auto file = read(tensors, {{"lora_adapter_metadata",
                                    R"({"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_k": 1},
                     "text_encoder.lora_alpha": 4, "text_encoder.use_rslora": true})"}});
  ASSERT_TRUE(file.ok()) << file.error().message;
  const auto& modules = (*file)->modules();
  EXPECT_DOUBLE_EQ(modules[0].scale(), 4 / std::sqrt(2.0));  // text_encoder.b
  EXPECT_DOUBLE_EQ(modules[1].scale(), 0.5);                 // unet.a.to_k
  EXPECT_DOUBLE_EQ(modules[2].scale(), 4.0);                 // unet.a.to_q
}

TEST_F(AdapterFileTest, PeftsConfigBesideItsModelCounts) {
  folder_.write("adapter_config.json", R"({"lora_alpha": 6, "r": 2})");
  const auto file = AdapterFile::read(testing::write_tensors(
      folder_.path() / "adapter_model.safetensors",
      {{"base_model.model.a.lora_A.weight", down_}, {"base_model.model.a.lora_B.weight", up_}}));
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ((*file)->modules().front().scale(), 3.0);
}

TEST_F(AdapterFileTest, ANanOrInfinityIsRefusedByName) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY}) {
    at::Tensor spoiled = up_.clone();
    spoiled[3][1] = bad;
    const std::string message =
        refusal({{"a.lora_down.weight", down_}, {"a.lora_up.weight", spoiled}});
    EXPECT_NE(message.find("'a.lora_up.weight' holds a NaN or an infinity"), std::string::npos)
        << message;
    EXPECT_NE(refusal({{"a.lora_down.weight", down_},
                       {"a.lora_up.weight", up_},
                       {"a.alpha", at::full({}, bad)}})
                  .find("'a.alpha' holds a NaN"),
              std::string::npos);
  }
}

TEST_F(AdapterFileTest, WhatIsNoWholeAdapterIsRefusedInASentence) {
  EXPECT_NE(refusal({{"a.lora_down.weight", down_}}).find("a LoRA module without its up tensor"),
            std::string::npos);
  EXPECT_NE(refusal({{"conv_in.weight", down_}}).find("is no adapter"), std::string::npos);
  EXPECT_NE(refusal({{"a.lora_down.weight", down_}, {"a.hada_w1_a", up_}})
                .find("tensors of a LoHa and of a LoRA module"),
            std::string::npos);
  EXPECT_NE(refusal({{"a.lora_down.weight", down_}, {"a.lora_A.weight", down_}}).find("two"),
            std::string::npos);
  EXPECT_NE(refusal({{"a.lora_down.weight", at::ones({2, 3}, at::kLong)}}).find("stored as I64"),
            std::string::npos);
  EXPECT_NE(refusal({{"a.lokr_w1", down_}}).find("lokr_w2"), std::string::npos);
  EXPECT_NE(
      refusal(
          {{"a.lora_down.weight", down_}, {"a.lora_up.weight", up_}, {"a.alpha", at::ones({2})}})
          .find("want one number"),
      std::string::npos);
  EXPECT_NE(refusal({{"a.lora_down.weight", down_}, {"a.lora_up.weight", up_}},
                    {{"lora_adapter_metadata", "{\"unet.lora_alpha\": \"x\"}"}})
                .find("is not a number"),
            std::string::npos);
}

TEST_F(AdapterFileTest, TensorsOfNoKindAreListed) {
  const auto file = read({{"a.lora_down.weight", down_},
                          {"a.lora_up.weight", up_},
                          {"b.weight", up_},
                          {"c.alpha", at::ones({})},
                          {"bundle_emb.cat.string_to_param", up_}});
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ((*file)->modules().size(), 1u);
  EXPECT_EQ((*file)->unknown_keys().size(), 3u);
}

TEST_F(AdapterFileTest, APickleIsRefusedWhateverItsName) {
  folder_.write("evil.safetensors", std::string("\x80\x02}q\x01") + std::string(40, '.'));
  const auto file = AdapterFile::read(folder_.path() / "evil.safetensors");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace limner::engine::lora
