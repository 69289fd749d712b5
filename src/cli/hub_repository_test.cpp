#include "cli/hub_repository.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace limner::cli {
namespace {

using platform::http::parse_url;

const char* const kIndex = R"({"_class_name": "StableDiffusionXLPipeline",
  "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
  "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "EulerDiscreteScheduler"],
  "feature_extractor": [null, null], "force_zeros_for_empty_prompt": true})";

HubRepository repository(std::vector<std::string> paths) {
  HubRepository made{"abc", {}};
  for (std::string& path : paths) made.files.push_back({std::move(path), 1, ""});
  return made;
}

const std::vector<std::string> kFiles = {
    ".gitattributes",
    "LICENSE.md",
    "README.md",
    "model_index.json",
    "whole_model.safetensors",
    "feature_extractor/preprocessor_config.json",
    "onnx/model.onnx",
    "scheduler/scheduler_config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_flax_model.msgpack",
    "unet/model.onnx",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
};

std::string chosen(const std::vector<std::string>& files, const std::string& variant) {
  const auto picked = choose_hub_files(repository(files), kIndex, variant);
  if (!picked.ok()) return picked.error().message;
  std::string text;
  for (const HubFile& file : *picked) text += file.path + "\n";
  return text;
}

TEST(HubRepository, PlainWeightsWithTheirShards) {
  EXPECT_EQ(chosen(kFiles, ""),
            "LICENSE.md\nREADME.md\nmodel_index.json\nscheduler/scheduler_config.json\n"
            "tokenizer/merges.txt\ntokenizer/vocab.json\nunet/config.json\n"
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors\n"
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors\n"
            "unet/diffusion_pytorch_model.safetensors.index.json\n"
            "vae/config.json\nvae/diffusion_pytorch_model.safetensors\n");
}

TEST(HubRepository, AVariantWhereThereIsOneAndPlainElsewhere) {
  EXPECT_EQ(chosen(kFiles, "fp16"),
            "LICENSE.md\nREADME.md\nmodel_index.json\nscheduler/scheduler_config.json\n"
            "tokenizer/merges.txt\ntokenizer/vocab.json\nunet/config.json\n"
            "unet/diffusion_pytorch_model.fp16.safetensors\n"
            "vae/config.json\nvae/diffusion_pytorch_model.safetensors\n");
  EXPECT_EQ(chosen(kFiles, "fp61"), "no component has the variant fp61; there are: fp16");
  EXPECT_EQ(chosen({"model_index.json", "unet/config.json",
                    "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
                    "unet/diffusion_pytorch_model.safetensors.index.fp16.json"},
                   "fp16"),
            "model_index.json\nunet/config.json\n"
            "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors\n"
            "unet/diffusion_pytorch_model.safetensors.index.fp16.json\n");
  EXPECT_EQ(chosen({"unet/diffusion_pytorch_model.fp16.safetensors"}, ""),
            "unet has no weights without a variant; there are: fp16");
}

TEST(HubRepository, PicklesAreRefusedNotSkipped) {
  EXPECT_NE(chosen({"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.bin"}, "")
                .find("unet has its weights only as Python pickles"),
            std::string::npos);
}

TEST(HubRepository, TheAnswerIsReadStrictly) {
  const auto good = parse_hub_repository(
      R"({"sha": "0123abcd", "siblings": [{"rfilename": "unet/a.safetensors", "size": 12,
          "blobId": "x", "lfs": {"sha256": "ff", "size": 12, "pointerSize": 134}},
          {"rfilename": "model_index.json", "size": 3}]})");
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(good->commit, "0123abcd");
  EXPECT_EQ(good->files[0].path, "unet/a.safetensors");
  EXPECT_EQ(good->files[0].sha256, "ff");
  EXPECT_EQ(good->files[0].bytes, 12u);
  EXPECT_EQ(good->files[1].sha256, "");
  for (const char* text :
       {"", "[]", "{}", R"({"sha": 1, "siblings": []})", R"({"sha": "../x", "siblings": []})",
        R"({"sha": "a", "siblings": [{"rfilename": "../x"}]})",
        R"({"sha": "a", "siblings": [{"rfilename": "/etc/passwd"}]})",
        R"({"sha": "a", "siblings": [{"rfilename": "unet/../../x"}]})",
        R"({"sha": "a", "siblings": [{"rfilename": "unet//x"}]})",
        R"({"sha": "a", "siblings": [{"rfilename": "unet\\x"}]})",
        R"({"sha": "a", "siblings": [{"rfilename": "unet/\u0000x"}]})",
        R"({"sha": "a", "siblings": [{"rfilename": 3}]})", R"({"sha": "a", "siblings": [3]})"}) {
    EXPECT_FALSE(parse_hub_repository(text).ok()) << text;
  }
}

TEST(HubName, IsOwnerNameAndRevision) {
  const auto name = parse_hub_name("stabilityai/sdxl-turbo@refs/pr/1").value();
  EXPECT_EQ(name.repository, "stabilityai/sdxl-turbo");
  EXPECT_EQ(name.revision, "refs/pr/1");
  EXPECT_EQ(parse_hub_name("a/b").value().revision, "main");
  for (const char* text : {"", "a", "a/b/c", "/a", "a/", "../x", "a/..", "a/b@", "a/b@../x",
                           "a b/c", "a/b?x", "a/b#c", "a/b@c@d", "a/b%2f"}) {
    EXPECT_FALSE(parse_hub_name(text).ok()) << text;
  }
}

TEST(HubName, MakesAddresses) {
  const auto hub = parse_url("https://hub.example").value();
  const HubName name{"o/n", "refs/pr/1"};
  EXPECT_EQ(hub_api_url(hub, name),
            "https://hub.example/api/models/o/n/revision/refs%2Fpr%2F1?blobs=true");
  EXPECT_EQ(hub_file_url(hub, name, "abc", "unet/a b?.safetensors"),
            "https://hub.example/o/n/resolve/abc/unet/a%20b%3F.safetensors");
}

}  // namespace
}  // namespace limner::cli
