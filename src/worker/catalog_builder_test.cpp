#include "worker/catalog_builder.h"

#include <gtest/gtest.h>

#include <fstream>
#include <span>

#include "engine/weights/safetensors.h"
#include "worker/testing.h"

namespace limner::worker {
namespace {

namespace fs = std::filesystem;

class CatalogBuilderTest : public ::testing::Test {
 protected:
  CatalogBuilderTest() {
    for (const char* name : {"first", "second", "loras"}) fs::create_directories(at(name));
    options_.model_folders = {at("first"), at("second"), at("absent")};
    options_.adapter_folders = {at("loras")};
    options_.hashes = at("hashes");
    options_.look_every = std::chrono::milliseconds(0);
  }
  fs::path at(const std::string& name) const { return folder_.path() / name; }
  CatalogBuilder& open() {
    builder_ = std::make_unique<CatalogBuilder>(options_, [this] { return loaded_; }, log_);
    return *builder_;
  }
  static void copy(const std::string& micro, const fs::path& to) {
    fs::copy(testing::micro_model(micro), to, fs::copy_options::recursive);
  }

  testing::TemporaryFolder folder_;
  NoLog log_;
  CatalogOptions options_;
  std::vector<std::string> loaded_;
  std::unique_ptr<CatalogBuilder> builder_;
};

TEST_F(CatalogBuilderTest, AModelOfTheFirstFolderHidesOneOfItsNameInAnother) {
  copy("micro-sd1", at("first/a"));
  copy("micro-sdxl", at("second/a"));
  copy("micro-sdxl", at("second/b"));
  options_.most_images = 4;
  const auto catalog = open().catalog();
  ASSERT_EQ(catalog->models.size(), 2u);
  EXPECT_EQ(catalog->model("a")->family, "sd1");
  EXPECT_EQ(catalog->model("b")->family, "sdxl");
  EXPECT_EQ(catalog->model("b")->pipeline, "StableDiffusionXLPipeline");
  EXPECT_GT(catalog->model("b")->bytes, 0u);
  EXPECT_EQ(catalog->model("b")->limits.most_images, 4);
  EXPECT_EQ(catalog->default_model, "a");
  EXPECT_EQ(builder_->place("b")->composition.model, at("second/b"));
  EXPECT_FALSE(builder_->place("c"));
}

TEST_F(CatalogBuilderTest, WhatIsDroppedInChangedOrRemovedIsSeen) {
  open();
  EXPECT_TRUE(builder_->catalog()->models.empty());
  copy("micro-sd1", at("first/a"));
  builder_->refresh();
  const std::string before = builder_->place("a")->version;
  EXPECT_TRUE(builder_->catalog()->model("a")->problem.empty());

  std::ofstream(at("first/a/unet/config.json")) << "{";
  builder_->refresh();
  EXPECT_NE(builder_->place("a")->version, before);
  EXPECT_NE(builder_->catalog()->model("a")->problem, "");
  EXPECT_EQ(builder_->catalog()->default_model, "");

  fs::remove_all(at("first/a"));
  builder_->refresh();
  EXPECT_EQ(builder_->catalog()->model("a"), nullptr);
}

TEST_F(CatalogBuilderTest, HashesComeInTheBackgroundAndAreRemembered) {
  copy("micro-sd1", at("first/a"));
  open().wait_for_hashes();
  const std::string hash = builder_->catalog()->model("a")->hash;
  EXPECT_EQ(hash.size(), 64u);
  EXPECT_EQ(builder_->place("a")->hash, hash);
  EXPECT_FALSE(fs::is_empty(at("hashes")));
  open().wait_for_hashes();
  EXPECT_EQ(builder_->catalog()->model("a")->hash, hash);
}

TEST_F(CatalogBuilderTest, AdaptersAreReadByTheirHeaders) {
  fs::copy(testing::source() / "loras/hollow.safetensors", at("loras/hollow.safetensors"));
  std::ofstream(at("loras/bad.safetensors")) << "no";
  const auto catalog = open().catalog();
  ASSERT_EQ(catalog->adapters.size(), 2u);
  EXPECT_EQ(catalog->adapter("hollow")->problem, "");
  EXPECT_NE(catalog->adapter("hollow")->kind, "");
  EXPECT_NE(catalog->adapter("bad")->problem, "");
}

TEST_F(CatalogBuilderTest, AWordThatIsBothTriggerAndTagIsToldOnce) {
  const std::vector<float> ones(4, 1.0F);
  const auto bytes = std::as_bytes(std::span(ones));
  engine::weights::write_safetensors(
      at("loras/night.safetensors"),
      {{"a.lora_down.weight", engine::weights::DType::kF32, {1, 4}, bytes},
       {"a.lora_up.weight", engine::weights::DType::kF32, {4, 1}, bytes}},
      {{"modelspec.trigger_phrase", "moon"},
       {"ss_tag_frequency", R"({"folder": {"moon": 3, "sun": 1}})"}})
      .value_or_throw();
  EXPECT_EQ(open().catalog()->adapter("night")->trigger_words,
            (std::vector<std::string>{"moon", "sun"}));
}

TEST_F(CatalogBuilderTest, WhatTheOperatorAllowsHoldsForDefaultsToo) {
  copy("micro-sd1", at("first/a"));
  const contract::Limits own = open().catalog()->model("a")->limits;
  options_.largest_side = own.default_width - 1;
  options_.most_steps = 2;
  const contract::Limits tight = open().catalog()->model("a")->limits;
  EXPECT_EQ(tight.largest_side, own.default_width - 1);
  EXPECT_EQ(tight.default_width, own.default_width - own.multiple);
  EXPECT_EQ(tight.default_height, tight.default_width);
  EXPECT_EQ(tight.default_steps, 2);
  EXPECT_TRUE(contract::validate({.prompt = "a"}, tight, 1).ok());
}

TEST_F(CatalogBuilderTest, WhatWorkersHoldIsSaid) {
  copy("micro-sd1", at("first/a"));
  EXPECT_FALSE(open().catalog()->model("a")->loaded);
  loaded_ = {"a"};
  builder_->refresh();
  EXPECT_TRUE(builder_->catalog()->model("a")->loaded);
}

}  // namespace
}  // namespace limner::worker
