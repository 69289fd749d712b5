#include "engine/engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "engine/weights/safetensors.h"

namespace limner::engine {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(LIMNER_SOURCE_DIR) / "tests/parity/fixtures/pipelines";

Engine load(const std::string& model) {
  auto engine = Engine::load(
      {.model = kModels / model / "model", .variant = {}, .precision = Precision::kFloat32}, {});
  if (!engine.ok()) throw Failure(engine.error());
  return std::move(*engine);
}

contract::ValidRequest request(const Engine& engine, contract::GenerationRequest asked) {
  if (asked.prompt.empty()) asked.prompt = "a cat";
  if (!asked.width) asked.width = 64;
  if (!asked.height) asked.height = 48;
  if (!asked.steps) asked.steps = 4;
  if (!asked.seed) asked.seed = 7;
  auto validation = contract::validate(asked, engine.limits(), 0);
  if (!validation.ok()) throw Failure(validation.error());
  return *validation.request;
}

// The values of one tensor, through the dump, so that nothing is lost to rounding.
std::vector<float> dumped(Engine& engine, Picture& picture, const std::string& name) {
  EXPECT_TRUE(engine.finish(picture).ok());
  const fs::path file = fs::temp_directory_path() /
                        ("limner_engine_test_" + std::to_string(getpid()) + ".safetensors");
  Picture* one[] = {&picture};
  EXPECT_TRUE(engine.write_dump(one, file).ok());
  const auto dump = weights::SafetensorsFile::open(file).value_or_throw();
  const auto& tensor = dump.tensors().at(name);
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  fs::remove(file);
  return values;
}

// After the last step.
std::vector<float> latents(Engine& engine, Picture& picture) {
  return dumped(engine, picture, "latents.final");
}

double worst_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, static_cast<double>(std::abs(a[i] - b[i])));
    largest = std::max(largest, static_cast<double>(std::abs(b[i])));
  }
  return worst / largest;
}

Picture begin(Engine& engine, const contract::ValidRequest& asked, std::int64_t index = 0) {
  auto picture = engine.begin(asked, index, {.keep_trace = true});
  if (!picture.ok()) throw Failure(picture.error());
  return std::move(*picture);
}

void run(Engine& engine, Picture& picture) {
  Picture* one[] = {&picture};
  while (!picture.done()) ASSERT_TRUE(engine.step(one).ok());
}

TEST(Engine, PicturesOfOneBatchMayDifferInSeedSamplerStepsAndGuidance) {
  Engine engine = load("micro-sdxl");
  const auto first = request(
      engine,
      {.prompt = "a cat", .steps = 6, .guidance_scale = 5.0, .sampler = "euler_a", .seed = 1});
  const auto second = request(
      engine,
      {.prompt = "two dogs", .steps = 3, .guidance_scale = 1.0, .sampler = "dpmpp_2m", .seed = 2});

  Picture alone_1 = begin(engine, first), alone_2 = begin(engine, second);
  run(engine, alone_1);
  run(engine, alone_2);

  Picture shared_1 = begin(engine, first), shared_2 = begin(engine, second);
  Picture* both[] = {&shared_1, &shared_2};
  while (!shared_2.done()) ASSERT_TRUE(engine.step(both).ok());
  EXPECT_EQ(shared_1.step(), 3);
  run(engine, shared_1);  // the other one has left

  EXPECT_LE(worst_difference(latents(engine, shared_1), latents(engine, alone_1)), 1e-4);
  EXPECT_LE(worst_difference(latents(engine, shared_2), latents(engine, alone_2)), 1e-4);
}

TEST(Engine, ImageIOfARequestEqualsItsSoloRunWithSeedPlusI) {
  Engine engine = load("micro-sdxl");
  const auto many = request(engine, {.sampler = "euler_a", .seed = 10, .num_images = 3});
  const auto solo = request(engine, {.sampler = "euler_a", .seed = 12});
  Picture third = begin(engine, many, 2), alone = begin(engine, solo);
  EXPECT_EQ(third.seed(), 12u);
  run(engine, third);
  run(engine, alone);
  EXPECT_EQ(latents(engine, third), latents(engine, alone));
}

TEST(Engine, TheSameSeedGivesTheSameBytesTwice) {
  Engine engine = load("micro-sd1");
  const auto asked = request(engine, {});
  Picture first = begin(engine, asked), second = begin(engine, asked);
  run(engine, first);
  run(engine, second);
  EXPECT_EQ(engine.finish(first)->pixels, engine.finish(second)->pixels);
}

TEST(Engine, APictureMayBeDroppedAtAnyStep) {
  Engine engine = load("micro-sd1");
  const auto asked = request(engine, {});
  {
    Picture dropped = begin(engine, asked);
    Picture* one[] = {&dropped};
    ASSERT_TRUE(engine.step(one).ok());
  }
  Picture next = begin(engine, asked);
  run(engine, next);
  EXPECT_TRUE(engine.finish(next).ok());
}

TEST(Engine, APreviewIsAnEighthOfThePictureAndChangesWithTheSteps) {
  Engine engine = load("micro-sdxl");
  Picture picture = begin(engine, request(engine, {}));
  const image::Bitmap noise = engine.preview(picture).value();
  EXPECT_EQ(noise.width, 8);
  EXPECT_EQ(noise.height, 6);
  run(engine, picture);
  EXPECT_NE(engine.preview(picture)->pixels, noise.pixels);
}

TEST(Engine, GuidanceUpToOneIsOff) {
  Engine engine = load("micro-sdxl");
  Picture off = begin(engine, request(engine, {.negative_prompt = "dogs", .guidance_scale = 1.0}));
  Picture zero =
      begin(engine, request(engine, {.negative_prompt = "birds", .guidance_scale = 0.0}));
  run(engine, off);
  run(engine, zero);
  EXPECT_EQ(latents(engine, off), latents(engine, zero));
}

TEST(Engine, ABatchOfTwoSizesIsRefused) {
  Engine engine = load("micro-sd1");
  Picture a = begin(engine, request(engine, {.width = 64, .height = 64}));
  Picture b = begin(engine, request(engine, {.width = 64, .height = 72}));
  Picture* both[] = {&a, &b};
  const auto stepped = engine.step(both);
  ASSERT_FALSE(stepped.ok());
  EXPECT_EQ(stepped.error().code, ErrorCode::kInvalidArgument);
}

TEST(Engine, ASizeThatDoesNotFitTheMemoryIsRefusedWithOneThatDoes) {
  auto engine = Engine::load({.model = kModels / "micro-sd1" / "model"},
                             {.threads = 0, .memory_budget = 64 << 20});
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  const auto asked = request(*engine, {.width = 8192, .height = 8192});
  const auto picture = engine->begin(asked, 0);
  ASSERT_FALSE(picture.ok());
  EXPECT_EQ(picture.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(picture.error().message.find("would fit"), std::string::npos)
      << picture.error().message;
}

TEST(Engine, ADecodeThatDoesNotFitIsTiledAndSaysSo) {
  auto plenty = Engine::load({.model = kModels / "micro-sd1" / "model", .vae_tiling = true}, {});
  ASSERT_TRUE(plenty.ok()) << plenty.error().message;
  const MemoryNeed need = plenty->memory(512, 512, 2);
  ASSERT_LT(need.tiled_decode, need.weights + need.denoise);
  auto scarce = Engine::load({.model = kModels / "micro-sd1" / "model"}, {});
  ASSERT_TRUE(scarce.ok()) << scarce.error().message;
  const MemoryNeed whole = scarce->memory(512, 512, 2);
  const std::uint64_t room = std::max(whole.denoise, whole.tiled_decode);
  ASSERT_LT(room, whole.decode);
  scarce = Engine::load({.model = kModels / "micro-sd1" / "model"},
                        {.threads = 0, .memory_budget = whole.weights + room});
  ASSERT_TRUE(scarce.ok()) << scarce.error().message;
  std::vector<image::Bitmap> drawn;
  for (Engine* engine : {&*plenty, &*scarce}) {
    Picture picture = begin(*engine, request(*engine, {.width = 512, .height = 512, .steps = 1}));
    EXPECT_EQ(picture.warnings().size(), engine == &*scarce ? 1U : 0U);
    Picture* one[] = {&picture};
    engine->step(one).value_or_throw();
    drawn.push_back(engine->finish(picture).value_or_throw());
  }
  EXPECT_EQ(drawn[0].pixels, drawn[1].pixels);
}

TEST(Engine, OffloadingChangesWhereWeightsWaitAndNotThePicture) {
  for (const char* model : {"micro-sd1", "micro-sdxl"}) {
    std::vector<std::vector<float>> drawn;
    for (const Offload offload : {Offload::kNone, Offload::kModel, Offload::kSequential}) {
      auto engine = Engine::load({.model = kModels / model / "model",
                                  .precision = Precision::kFloat32,
                                  .offload = offload},
                                 {});
      ASSERT_TRUE(engine.ok()) << engine.error().message;
      for (int repeat = 0; repeat < 2; ++repeat) {  // every network comes back
        Picture picture =
            engine->begin(request(*engine, {.steps = 2}), 0, {.keep_trace = true}).value_or_throw();
        Picture* one[] = {&picture};
        while (!picture.done()) engine->step(one).value_or_throw();
        drawn.push_back(latents(*engine, picture));
      }
    }
    for (const auto& other : drawn) EXPECT_LT(worst_difference(other, drawn[0]), 1e-6) << model;
  }
}

TEST(Engine, WeightsThatDoNotFitTheMemoryAreRefusedBeforeTheyAreRead) {
  const auto engine = Engine::load({.model = kModels / "micro-sd1" / "model"},
                                   {.threads = 0, .memory_budget = 1024});
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.error().code, ErrorCode::kOutOfMemory);
}

TEST(Engine, AMissingModelAndAnUnknownDeviceAreNamed) {
  const auto missing = Engine::load({.model = kModels / "nowhere"}, {});
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  const auto device = Engine::load({.model = kModels / "micro-sd1" / "model",
                                    .variant = {},
                                    .precision = Precision::kAuto,
                                    .device = "tpu"},
                                   {});
  ASSERT_FALSE(device.ok());
  EXPECT_EQ(device.error().code, ErrorCode::kInvalidArgument);
}

TEST(Engine, ATruncatedPromptIsReportedWithWhatWasCut) {
  Engine engine = load("micro-sd1");
  std::string prompt;
  for (int i = 0; i < 200; ++i) prompt += "word" + std::to_string(i) + " ";
  const Picture picture =
      begin(engine, request(engine, {.prompt = prompt, .long_prompt = "truncate"}));
  ASSERT_EQ(picture.warnings().size(), 1u);
  EXPECT_NE(picture.warnings()[0].find("word199"), std::string::npos);
}

TEST(Engine, SidesOfAnAndShareTheGuidanceByWeight) {
  Engine engine = load("micro-sdxl");
  const auto first_prediction = [&](const char* prompt) {
    Picture picture = begin(engine, request(engine, {.prompt = prompt, .negative_prompt = "x"}));
    run(engine, picture);
    return dumped(engine, picture, "noise_pred.000");
  };
  const std::vector<float> red = first_prediction("a red circle"), blue = first_prediction("blue");
  std::vector<float> want(red.size());
  for (std::size_t i = 0; i < want.size(); ++i) want[i] = 0.25F * red[i] + 0.75F * blue[i];
  EXPECT_LE(worst_difference(first_prediction("a red circle:0.25 AND blue:0.75"), want), 1e-4);
  // Sides that are the same text are one row, and their weights add up.
  EXPECT_LE(worst_difference(first_prediction("a red circle:0.4 AND a red circle:0.6"), red), 1e-4);
}

TEST(Engine, AndNeedsANegativePromptButNotAScaleAboveOne) {
  Engine engine = load("micro-sd1");
  const auto prediction = [&](const char* prompt, double scale) {
    Picture picture = begin(engine, request(engine, {.prompt = prompt, .guidance_scale = scale}));
    run(engine, picture);
    return dumped(engine, picture, "noise_pred.000");
  };
  EXPECT_LE(worst_difference(prediction("red:0.5 AND red:0.5", 1.0), prediction("red", 1.0)), 1e-4);
}

TEST(Engine, AScheduleChangesTheTextAtItsStep) {
  Engine engine = load("micro-sd1");
  Picture changing = begin(engine, request(engine, {.prompt = "a [red:blue:0.5] circle"}));
  Picture red = begin(engine, request(engine, {.prompt = "a red circle"}));
  run(engine, changing);
  run(engine, red);
  for (const char* same : {"latents.000", "latents.001"}) {
    EXPECT_EQ(dumped(engine, changing, same), dumped(engine, red, same)) << same;
  }
  EXPECT_NE(dumped(engine, changing, "noise_pred.002"), dumped(engine, red, "noise_pred.002"));
}

TEST(Engine, PromptsOfDifferentLengthsMayShareABatch) {
  Engine engine = load("micro-sdxl");
  std::string longer = "red";
  for (int i = 0; i < 100; ++i) longer += " red";
  const auto first = request(engine, {.prompt = longer});
  const auto second = request(engine, {.prompt = "a circle AND blue", .seed = 8});
  Picture alone_1 = begin(engine, first), alone_2 = begin(engine, second);
  run(engine, alone_1);
  run(engine, alone_2);
  Picture shared_1 = begin(engine, first), shared_2 = begin(engine, second);
  Picture* both[] = {&shared_1, &shared_2};
  while (!shared_1.done()) ASSERT_TRUE(engine.step(both).ok());
  EXPECT_LE(worst_difference(latents(engine, shared_1), latents(engine, alone_1)), 1e-4);
  EXPECT_LE(worst_difference(latents(engine, shared_2), latents(engine, alone_2)), 1e-4);
}

TEST(Engine, ANegativePromptMayStandInsideThePrompt) {
  Engine engine = load("micro-sd1");
  const auto drawn = [&](contract::GenerationRequest asked) {
    Picture picture = begin(engine, request(engine, std::move(asked)));
    run(engine, picture);
    return latents(engine, picture);
  };
  EXPECT_EQ(drawn({.prompt = "a cat --no red, blue", .extract_negative = true}),
            drawn({.prompt = "a cat", .negative_prompt = "red, blue"}));
}

TEST(Engine, APromptThatCannotBeReadIsRefusedWithItsPlace) {
  Engine engine = load("micro-sd1");
  const auto picture = engine.begin(request(engine, {.prompt = "a (red:1.1.1) circle"}), 0);
  ASSERT_FALSE(picture.ok());
  EXPECT_EQ(picture.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(picture.error().message.find("column 8"), std::string::npos) << picture.error().message;
}

}  // namespace
}  // namespace limner::engine
