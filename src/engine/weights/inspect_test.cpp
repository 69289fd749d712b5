#include "engine/weights/inspect.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/sha256.h"
#include "engine/weights/finite.h"
#include "engine/weights/testing.h"

namespace limner::engine::weights {
namespace {

using testing::TemporaryFolder;
using testing::write_floats;

std::string content(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

std::string hash(const std::string& text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

class Inspect : public ::testing::Test {
 protected:
  void SetUp() override {
    write_index("StableDiffusionPipeline");
    folder_.write("m/unet/config.json",
                  R"({"_class_name":"UNet2DConditionModel","cross_attention_dim":768})");
    write_floats(root() / "unet" / "diffusion_pytorch_model.safetensors",
                 {{"a.weight", {2, 2}, {1, 2, 3, 4}}, {"b", {3}, {1, 2, 3}}});
    folder_.write("m/scheduler/scheduler_config.json", R"({"_class_name":"PNDMScheduler"})");
    folder_.write("m/tokenizer/vocab.json", "{}");
    folder_.write("m/tokenizer/merges.txt", "#version: 0.2\n");
  }

  void write_index(const std::string& pipeline) {
    folder_.write("m/model_index.json",
                  R"({"_class_name":")" + pipeline + R"(","_diffusers_version":"0.42.1",
      "unet":["diffusers","UNet2DConditionModel"],"scheduler":["diffusers","PNDMScheduler"],
      "tokenizer":["transformers","CLIPTokenizer"],"safety_checker":[null,null]})");
  }

  std::filesystem::path root() const { return folder_.path() / "m"; }

  Inspection inspected() {
    const auto result = inspect(root());
    EXPECT_TRUE(result.ok()) << result.error().message;
    return result.ok() ? *result : Inspection{};
  }

  // The only problem, or all of them joined when there is not exactly one.
  std::string problem() {
    std::string joined;
    for (const std::string& sentence : inspected().problems)
      joined += (joined.empty() ? "" : " | ") + sentence;
    return joined;
  }

  TemporaryFolder folder_;
};

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(Inspect, DescribesASoundModel) {
  const Inspection model = inspected();
  EXPECT_EQ(problem(), "");
  EXPECT_EQ(model.family, "sd1");
  EXPECT_EQ(model.pipeline_class, "StableDiffusionPipeline");
  EXPECT_EQ(model.parameters, 7u);
  EXPECT_EQ(model.bytes, 28u);
  ASSERT_EQ(model.components.size(), 3u);
  const ComponentReport& unet = model.components[2];
  EXPECT_EQ(unet.name, "unet");
  EXPECT_EQ(unet.class_name, "UNet2DConditionModel");
  EXPECT_EQ(unet.config["cross_attention_dim"], 768);
  EXPECT_EQ(unet.parameters_by_dtype.at("F32"), 7u);
  EXPECT_EQ(unet.tensors, 2u);
  ASSERT_EQ(unet.files.size(), 2u);
  EXPECT_EQ(unet.files[0].path, "unet/diffusion_pytorch_model.safetensors");
  EXPECT_EQ(unet.files[0].sha256, hash(content(root() / unet.files[0].path)));
  EXPECT_EQ(unet.files[0].bytes, std::filesystem::file_size(root() / unet.files[0].path));
}

TEST_F(Inspect, HashOfAllIsThatOfTheSortedList) {
  std::string list;
  for (const char* file :
       {"model_index.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt",
        "tokenizer/vocab.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"}) {
    list += hash(content(root() / file)) + "  " + file + "\n";
  }
  EXPECT_EQ(inspected().sha256, hash(list));
}

TEST_F(Inspect, TellsFamiliesApart) {
  const auto family = [&](const std::string& pipeline) {
    write_index(pipeline);
    return inspected().family;
  };
  EXPECT_EQ(family("StableDiffusionXLPipeline"), "sdxl");
  EXPECT_EQ(family("StableDiffusionXLInpaintPipeline"), "sdxl");
  EXPECT_EQ(family("StableDiffusion3Pipeline"), "sd3");
  EXPECT_EQ(family("FluxPipeline"), "flux");
  EXPECT_EQ(family("QwenImagePipeline"), "qwen-image");
  EXPECT_EQ(family("LatentConsistencyModelPipeline"), "sd1");
  EXPECT_EQ(family("KandinskyPipeline"), "unknown");
  folder_.write("m/unet/config.json", R"({"cross_attention_dim":1024})");
  EXPECT_EQ(family("StableDiffusionPipeline"), "sd2");
  folder_.write("m/unet/config.json", R"({"cross_attention_dim":[1]})");
  EXPECT_EQ(family("StableDiffusionPipeline"), "unknown");
}

TEST_F(Inspect, NamesEachProblem) {
  std::filesystem::remove(root() / "unet" / "config.json");
  EXPECT_CONTAINS(problem(), "unet/config.json: no such file");
  folder_.write("m/unet/config.json", "{");
  EXPECT_CONTAINS(problem(), "unet/config.json: not valid JSON");
  folder_.write("m/unet/config.json", "{}");
  std::filesystem::remove_all(root() / "scheduler");
  EXPECT_CONTAINS(problem(),
                  "scheduler: the folder of this component ('PNDMScheduler') is missing");
  folder_.write("m/scheduler/scheduler_config.json", "{}");
  const auto weights = root() / "unet" / "diffusion_pytorch_model.safetensors";
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) - 1);
  EXPECT_CONTAINS(problem(), "cut off");
  std::filesystem::remove(weights);
  EXPECT_CONTAINS(problem(), "has no weights");
  folder_.write("m/unet/diffusion_pytorch_model.bin", "PK\x03\x04");
  EXPECT_CONTAINS(problem(), "pickle");
  folder_.write("m/unet/diffusion_pytorch_model.safetensors.index.json",
                R"({"weight_map":{"a":"s-1.safetensors"}})");
  EXPECT_CONTAINS(problem(), "'s-1.safetensors', which is not there");
}

TEST_F(Inspect, NamesTensorsWithNaN) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              inf = std::numeric_limits<float>::infinity();
  write_floats(root() / "unet" / "diffusion_pytorch_model.safetensors",
               {{"fine", {1}, {0}}, {"bad", {2}, {1, nan}}, {"worse", {1}, {-inf}}});
  EXPECT_EQ(problem(), "unet: 2 tensors hold NaN or infinity: 'bad', 'worse'");
  const auto quick = inspect(root(), {.hashes = false, .values = false});
  ASSERT_TRUE(quick.ok());
  EXPECT_TRUE(quick->problems.empty());
  EXPECT_TRUE(quick->sha256.empty());
}

TEST_F(Inspect, SpeaksForTheFirstOfSeveralVariants) {
  std::filesystem::remove(root() / "unet" / "diffusion_pytorch_model.safetensors");
  write_floats(root() / "unet" / "diffusion_pytorch_model.fp16.safetensors", {{"a", {1}, {1}}});
  write_floats(root() / "unet" / "diffusion_pytorch_model.non_ema.safetensors", {{"a", {1}, {1}}});
  EXPECT_EQ(problem(), "");
  EXPECT_EQ(inspected().parameters, 1u);
}

TEST_F(Inspect, ListsASingleFile) {
  const auto file = root() / "unet" / "diffusion_pytorch_model.safetensors";
  const auto single = inspect(file);
  ASSERT_TRUE(single.ok());
  ASSERT_EQ(single->tensors.size(), 2u);
  EXPECT_EQ(single->tensors[0].name, "a.weight");
  EXPECT_EQ(single->tensors[0].dtype, "F32");
  EXPECT_EQ(single->tensors[0].shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(single->parameters, 7u);
  EXPECT_EQ(single->sha256, hash(content(file)));
}

TEST_F(Inspect, FailsOnlyWhereThereIsNoModel) {
  EXPECT_EQ(inspect(folder_.path() / "nothing").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(inspect(folder_.path()).error().code, ErrorCode::kInvalidModel);
  EXPECT_EQ(inspect(folder_.write("x.ckpt", "PK\x03\x04 more than eight bytes")).error().code,
            ErrorCode::kUnsupported);
}

TEST(AllFinite, FindsEveryBadPatternAtEveryPlace) {
  const auto check = [](DType dtype, std::uint32_t pattern, bool finite) {
    const std::size_t width = bits(dtype) / 8;
    for (const std::size_t place : {0u, 1u, 37u, 4095u, 4096u, 9999u}) {
      std::vector<std::byte> bytes(10'000 * width + 1);
      std::memcpy(bytes.data() + 1 + place * width, &pattern, width);  // unaligned on purpose
      EXPECT_EQ(all_finite(dtype, std::span(bytes).subspan(1)), finite)
          << name(dtype) << " " << pattern;
    }
  };
  for (const std::uint32_t bad : {0x7C00u, 0xFC00u, 0x7E00u, 0xFE00u, 0x7C01u})
    check(DType::kF16, bad, false);
  for (const std::uint32_t good : {0x7BFFu, 0xFBFFu, 0x0001u, 0x8000u, 0x3C00u})
    check(DType::kF16, good, true);
  for (const std::uint32_t bad : {0x7F80u, 0xFF80u, 0x7FC0u, 0x7F81u})
    check(DType::kBF16, bad, false);
  for (const std::uint32_t good : {0x7F7Fu, 0xFF7Fu, 0x7C00u, 0x8000u})
    check(DType::kBF16, good, true);
  for (const std::uint32_t bad : {0x7F800000u, 0xFF800000u, 0x7FC00000u, 0x7F800001u})
    check(DType::kF32, bad, false);
  for (const std::uint32_t good : {0x7F7FFFFFu, 0xFF7FFFFFu, 0x80000000u, 1u})
    check(DType::kF32, good, true);
  check(DType::kI32, 0x7FC00000u, true);
}

}  // namespace
}  // namespace limner::engine::weights
