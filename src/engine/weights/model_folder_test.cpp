#include "engine/weights/model_folder.h"

#include <gtest/gtest.h>

#include "engine/weights/testing.h"

namespace limner::engine::weights {
namespace {

using testing::TemporaryFolder;

// What diffusers 0.42 writes for SDXL.
constexpr const char* kSdxl = R"({
  "_class_name": "StableDiffusionXLPipeline",
  "_diffusers_version": "0.42.1",
  "_name_or_path": "somewhere",
  "feature_extractor": [null, null],
  "force_zeros_for_empty_prompt": true,
  "image_encoder": [null, null],
  "scheduler": ["diffusers", "EulerDiscreteScheduler"],
  "text_encoder": ["transformers", "CLIPTextModel"],
  "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
  "tokenizer": ["transformers", "CLIPTokenizer"],
  "tokenizer_2": ["transformers", "CLIPTokenizer"],
  "unet": ["diffusers", "UNet2DConditionModel"],
  "vae": ["diffusers", "AutoencoderKL"],
  "number": 3, "list": [1, 2, 3]
})";

std::string failure(const std::filesystem::path& path, ErrorCode want) {
  const auto folder = read_model_folder(path);
  EXPECT_FALSE(folder.ok());
  if (folder.ok()) return "";
  EXPECT_EQ(name(folder.error().code), name(want)) << folder.error().message;
  EXPECT_EQ(folder.error().message.find('\n'), std::string::npos);
  return folder.error().message;
}

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(ModelFolder, ReadsAnIndex) {
  const TemporaryFolder temporary;
  temporary.write("m/model_index.json", kSdxl);
  const auto folder = read_model_folder(temporary.path() / "m");
  ASSERT_TRUE(folder.ok()) << folder.error().message;
  EXPECT_EQ(folder->pipeline_class, "StableDiffusionXLPipeline");
  EXPECT_EQ(folder->diffusers_version, "0.42.1");
  EXPECT_EQ(folder->components.size(), 7u);
  EXPECT_EQ(folder->components.at("unet").library, "diffusers");
  EXPECT_EQ(folder->components.at("text_encoder_2").class_name, "CLIPTextModelWithProjection");
  EXPECT_FALSE(folder->has("image_encoder"));
  EXPECT_TRUE(folder->has("vae"));
  EXPECT_TRUE(folder->flags.at("force_zeros_for_empty_prompt"));
  EXPECT_EQ(folder->config_file("unet"), temporary.path() / "m" / "unet" / "config.json");
}

TEST(ModelFolder, SaysWhatIsWrong) {
  const TemporaryFolder temporary;
  temporary.write("miniature/model_index.json", kSdxl);
  EXPECT_CONTAINS(failure(temporary.path() / "minature", ErrorCode::kNotFound),
                  "did you mean miniature");
  EXPECT_CONTAINS(failure(temporary.path() / "minature/", ErrorCode::kNotFound),
                  "did you mean miniature");
  temporary.write("component/config.json", "{}");
  EXPECT_CONTAINS(failure(temporary.path() / "component", ErrorCode::kInvalidModel),
                  "one component");
  temporary.write("empty/readme.txt", "");
  EXPECT_CONTAINS(failure(temporary.path() / "empty", ErrorCode::kInvalidModel),
                  "no model_index.json");
  const auto single = temporary.write("sd.safetensors", "x");
  EXPECT_CONTAINS(failure(single, ErrorCode::kInvalidModel), "single file");
  const auto pickle = temporary.write("sd.ckpt", "x");
  EXPECT_CONTAINS(failure(pickle, ErrorCode::kUnsupported), "convert it to safetensors");
  for (const char* text : {"", "{", "[]", "{}", R"({"_class_name": 3})", R"({"_class_name": null})",
                           R"({"_class_name": "X", "_diffusers_version": []})"}) {
    temporary.write("broken/model_index.json", text);
    EXPECT_CONTAINS(failure(temporary.path() / "broken", ErrorCode::kInvalidModel),
                    "broken/model_index.json");
  }
}

TEST(ModelFolder, AComponentCannotLeadOutOfTheFolder) {
  const TemporaryFolder temporary;
  for (const char* name : {"../unet", "/etc", "a/b", "..", "", "a\\\\b", "a\\u0000"}) {
    temporary.write("m/model_index.json", std::string(R"({"_class_name":"X",")") + name +
                                              R"(":["diffusers","UNet2DConditionModel"]})");
    EXPECT_CONTAINS(failure(temporary.path() / "m", ErrorCode::kInvalidModel),
                    "name of a component");
  }
}

}  // namespace
}  // namespace limner::engine::weights
