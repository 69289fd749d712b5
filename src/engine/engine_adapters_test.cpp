// Adapters through the front door: pictures against diffusers with PEFT, mixed batches, and nothing
// left behind.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "engine/engine.h"
#include "engine/lora/testing.h"
#include "engine/weights/safetensors.h"

namespace limner::engine {
namespace {

namespace fs = std::filesystem;
using lora::AdapterScales;
using lora::testing::Tensors;
using weights::testing::TemporaryFolder;

const fs::path kFixtures = fs::path(LIMNER_SOURCE_DIR) / "tests/parity/fixtures";

Engine load(const std::string& model, const EngineOptions& options = {}) {
  auto engine = Engine::load({.model = kFixtures / "pipelines" / model / "model",
                              .variant = {},
                              .precision = Precision::kFloat32},
                             options);
  if (!engine.ok()) throw Failure(engine.error());
  return std::move(*engine);
}

contract::ValidRequest request(const Engine& engine, contract::GenerationRequest asked = {}) {
  if (asked.prompt.empty()) asked.prompt = "a red circle above a blue square";
  asked.width = asked.height = 32;
  asked.steps = 3;
  if (!asked.guidance_scale) asked.guidance_scale = 5.0;
  if (!asked.seed) asked.seed = 11;
  auto validation = contract::validate(asked, engine.limits(), 0);
  if (!validation.ok()) throw Failure(validation.error());
  return *validation.request;
}

Picture begin(Engine& engine, const contract::ValidRequest& asked,
              std::vector<PictureAdapter> adapters) {
  auto picture = engine.begin(asked, 0, {.adapters = std::move(adapters), .keep_trace = true});
  if (!picture.ok()) throw Failure(picture.error());
  return std::move(*picture);
}

// latents.final and prompt_embeds of finished pictures.
Tensors dump(Engine& engine, Picture& picture, const TemporaryFolder& folder) {
  EXPECT_TRUE(engine.finish(picture).ok());
  Picture* one[] = {&picture};
  const fs::path file = folder.path() / "dump.safetensors";
  EXPECT_TRUE(engine.write_dump(one, file).ok());
  return lora::testing::read_tensors(file);
}

Tensors drawn(Engine& engine, std::vector<PictureAdapter> adapters, const TemporaryFolder& folder,
              const contract::GenerationRequest& asked = {}) {
  Picture picture = begin(engine, request(engine, asked), std::move(adapters));
  Picture* one[] = {&picture};
  while (!picture.done()) engine.step(one).value_or_throw();
  return dump(engine, picture, folder);
}

double difference(const at::Tensor& got, const at::Tensor& want) {
  return ((got - want).abs().max() / want.abs().max()).item<double>();
}

std::string underscored(std::string name) {
  for (char& c : name) c = c == '.' ? '_' : c;
  return name;
}

// A PEFT file of ours in other spellings, all of alpha 1.5.
Tensors respelled(const Tensors& peft, const std::string& spelling, bool xl) {
  Tensors result;
  for (const auto& [key, tensor] : peft) {
    const bool down = key.find(".lora_A.") != std::string::npos;
    const std::string layer = key.substr(0, key.find(".lora_"));
    const std::string component = layer.substr(0, layer.find('.'));
    const std::string name = layer.substr(component.size() + 1);
    const std::string side = down ? "down" : "up";
    std::string base = layer;
    if (spelling == "kohya") {
      base = (component == "unet"             ? "lora_unet_"
              : component == "text_encoder_2" ? "lora_te2_"
              : xl                            ? "lora_te1_"
                                              : "lora_te_") +
             underscored(name);
      result[base + ".lora_" + side + ".weight"] = tensor;
    } else {
      result[base + ".lora." + side + ".weight"] = tensor;
    }
    result[base + ".alpha"] = at::full({}, 1.5);
  }
  return result;
}

class AdapterParity : public ::testing::TestWithParam<const char*> {
 protected:
  fs::path fixture(const std::string& what) const {
    return kFixtures / "adapters" / (std::string(GetParam()) + what + ".safetensors");
  }
  TemporaryFolder folder_;
};

TEST_P(AdapterParity, PicturesEqualDiffusersWithPeftInEverySpelling) {
  const Tensors want = lora::testing::read_tensors(fixture(".latents"));
  const Tensors peft = lora::testing::read_tensors(fixture(".adapter"));
  const bool xl = std::string(GetParam()) == "micro-sdxl";
  Engine engine = load(GetParam());
  const Tensors plain = drawn(engine, {}, folder_);
  EXPECT_GT(difference(plain.at("latents.final"), want.at("latents.final")), 0.01);
  EXPECT_GT(difference(plain.at("prompt_embeds"), want.at("prompt_embeds")), 0.01);
  std::vector<fs::path> files = {fixture(".adapter")};
  for (const std::string spelling : {"kohya", "diffusers"}) {
    files.push_back(lora::testing::write_tensors(folder_.path() / (spelling + ".safetensors"),
                                                 respelled(peft, spelling, xl)));
  }
  for (const fs::path& file : files) {
    const auto report = engine.load_adapter(file, false);
    ASSERT_TRUE(report.ok()) << report.error().message;
    EXPECT_EQ(report->layers(), peft.size() / 2);
    EXPECT_TRUE(report->unmatched.empty());
    const Tensors got = drawn(engine, {{file, {}}}, folder_);
    EXPECT_LE(difference(got.at("prompt_embeds"), want.at("prompt_embeds")), 1e-4) << file;
    EXPECT_LE(difference(got.at("latents.final"), want.at("latents.final")), 1e-4) << file;
  }
}

TEST_P(AdapterParity, RowsOfOneBatchUseTheirOwnAdaptersAndEqualTheirSoloRuns) {
  Engine engine = load(GetParam());
  Tensors other = respelled(lora::testing::read_tensors(fixture(".adapter")), "kohya",
                            std::string(GetParam()) == "micro-sdxl");
  for (auto& [key, tensor] : other) {
    if (key.ends_with("up.weight")) tensor = tensor.flip({0});
  }
  const fs::path first = fixture(".adapter");
  const fs::path second = lora::testing::write_tensors(folder_.path() / "other.safetensors", other);
  const std::vector<std::vector<PictureAdapter>> rows = {
      {{first, {}}},
      {},
      {{second, AdapterScales::all(0.7)}},
      {{first, AdapterScales::all(-0.5)}, {second, {1.0, 0.0, 0.3, {{"down", 0.2}, {"mid", 2}}}}}};
  std::vector<Picture> pictures;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double guidance = i == 2 ? 1.0 : 4.0;  // one or two rows each
    pictures.push_back(
        begin(engine, request(engine, {.guidance_scale = guidance, .seed = static_cast<int>(i)}),
              rows[i]));
  }
  std::vector<Picture*> batch;
  for (Picture& picture : pictures) batch.push_back(&picture);
  while (!pictures[0].done()) ASSERT_TRUE(engine.step(batch).ok());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Tensors together = dump(engine, pictures[i], folder_);
    const Tensors alone =
        drawn(engine, rows[i], folder_,
              {.guidance_scale = i == 2 ? 1.0 : 4.0, .seed = static_cast<int>(i)});
    EXPECT_LE(difference(together.at("latents.final"), alone.at("latents.final")), 1e-4) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, AdapterParity, ::testing::Values("micro-sd1", "micro-sdxl"),
                         [](const auto& test) {
                           return std::string(test.param) == "micro-sd1" ? "sd1" : "sdxl";
                         });

TEST(EngineAdapters, AThousandSwitchesLeaveNoTrace) {
  const TemporaryFolder folder;
  Engine engine = load("micro-sd1");
  const fs::path file = kFixtures / "adapters" / "micro-sd1.adapter.safetensors";
  const Tensors before = drawn(engine, {}, folder);
  std::mt19937 random(1);
  const auto asked = request(engine);
  for (int i = 0; i < 1000; ++i) {
    const double weight = static_cast<double>(random() % 400) / 100.0 - 2.0;
    std::vector<PictureAdapter> adapters;
    if (random() % 4 != 0) adapters.push_back({file, AdapterScales::all(weight)});
    Picture picture = begin(engine, asked, adapters);
    Picture* one[] = {&picture};
    ASSERT_TRUE(engine.step(one).ok());
  }
  const Tensors after = drawn(engine, {}, folder);
  EXPECT_TRUE(after.at("latents.final").equal(before.at("latents.final")));
  EXPECT_TRUE(after.at("prompt_embeds").equal(before.at("prompt_embeds")));
  EXPECT_EQ(engine.adapter_cache().misses, 1u);
  EXPECT_EQ(engine.adapter_cache().adapters, 1u);
}

TEST(EngineAdapters, ATagInThePromptNamesAFileOfTheFolders) {
  const TemporaryFolder folder;
  fs::create_directories(folder.path() / "loras");
  const fs::path file = folder.path() / "loras" / "style.safetensors";
  fs::copy_file(kFixtures / "adapters" / "micro-sd1.adapter.safetensors", file);
  EngineOptions options;
  options.adapter_folders = {folder.path() / "loras"};
  Engine engine = load("micro-sd1", options);
  const Tensors tagged = drawn(engine, {}, folder, {.prompt = "a cat<lora:style:0.5>"});
  const Tensors given =
      drawn(engine, {{file, AdapterScales::all(0.5)}}, folder, {.prompt = "a cat"});
  EXPECT_TRUE(tagged.at("latents.final").equal(given.at("latents.final")));
  const auto unknown = engine.begin(request(engine, {.prompt = "a cat <lora:stile:1>"}), 0);
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, ErrorCode::kNotFound);
  EXPECT_NE(unknown.error().message.find("style"), std::string::npos) << unknown.error().message;
}

TEST(EngineAdapters, KeysThatMatchNothingAreAnErrorUnlessAllowedAndAreReported) {
  const TemporaryFolder folder;
  Engine engine = load("micro-sd1");
  Tensors tensors =
      lora::testing::read_tensors(kFixtures / "adapters" / "micro-sd1.adapter.safetensors");
  tensors["unet.mid_block.attentions.0.proj_inn.lora_A.weight"] = at::ones({1, 16, 1, 1});
  tensors["unet.mid_block.attentions.0.proj_inn.lora_B.weight"] = at::ones({16, 1, 1, 1});
  const fs::path file = lora::testing::write_tensors(folder.path() / "style.safetensors", tensors);
  const auto refused = engine.load_adapter(file, false);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidModel);
  EXPECT_NE(
      refused.error().message.find("proj_inn' (did you mean unet.mid_block.attentions.0.proj_in?)"),
      std::string::npos)
      << refused.error().message;
  const auto report = engine.load_adapter(file, true);
  ASSERT_TRUE(report.ok()) << report.error().message;
  ASSERT_EQ(report->unmatched.size(), 1u);
  EXPECT_EQ(report->kinds, "LoRA");
  EXPECT_EQ(report->highest_rank, 2);
}

TEST(EngineAdapters, AChangedFileIsReadAnew) {
  const TemporaryFolder folder;
  Engine engine = load("micro-sd1");
  const Tensors tensors =
      lora::testing::read_tensors(kFixtures / "adapters" / "micro-sd1.adapter.safetensors");
  const fs::path file = lora::testing::write_tensors(folder.path() / "a.safetensors", tensors);
  const Tensors old = drawn(engine, {{file, {}}}, folder);
  Tensors changed = tensors;
  for (auto& [key, tensor] : changed) tensor = tensor * 0.5;
  lora::testing::write_tensors(file, changed);
  fs::last_write_time(file, fs::file_time_type::clock::now() + std::chrono::seconds(5));
  const Tensors now = drawn(engine, {{file, {}}}, folder);
  EXPECT_FALSE(now.at("latents.final").equal(old.at("latents.final")));
  EXPECT_EQ(engine.adapter_cache().misses, 2u);
}

TEST(EngineAdapters, LoadedAdaptersCountAsMemoryOfWhatIsDrawn) {
  Engine engine = load("micro-sd1");
  const MemoryNeed before = engine.memory(32, 32, 2);
  EXPECT_EQ(before.adapters, 0u);
  const fs::path file = kFixtures / "adapters" / "micro-sd1.adapter.safetensors";
  ASSERT_TRUE(engine.load_adapter(file, false).ok());
  const MemoryNeed after = engine.memory(32, 32, 2);
  EXPECT_GE(after.adapters, fs::file_size(file));
  EXPECT_EQ(after.peak(), before.peak() + after.adapters);
  EXPECT_EQ(engine.adapter_cache().bytes, after.adapters);
  EXPECT_EQ(engine.adapter_cache().host_bytes, 0u);  // the device is the host
}

}  // namespace
}  // namespace limner::engine
