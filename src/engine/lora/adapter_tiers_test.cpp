#include "engine/lora/adapter_tiers.h"

#include <gtest/gtest.h>

#include "engine/lora/testing.h"

namespace limner::engine::lora {
namespace {

using weights::testing::TemporaryFolder;

class AdapterTiersTest : public ::testing::Test {
 protected:
  AdapterTiersTest()
      : layers_({{"unet", testing::network(folder_, "unet", {{"x.weight", at::zeros({4, 3})}})}}) {
    for (const std::string name : {"a", "b"}) {
      testing::write_tensors(
          folder_.path() / (name + ".safetensors"),
          {{"unet.x.lora_A.weight", at::ones({2, 3})}, {"unet.x.lora_B.weight", at::ones({4, 2})}});
    }
  }
  // As on a device of its own: the attached adapter does not keep the file's memory.
  AdapterCache::Pointer get(AdapterTiers& tiers, const std::string& name) {
    return tiers.get(
        name,
        [&] {
          ++reads_;
          return AdapterFile::read(folder_.path() / (name + ".safetensors")).value_or_throw();
        },
        [&](const AdapterFile& file) {
          ++attached_;
          auto adapter = std::make_shared<AttachedAdapter>(*attach(file, layers_, {}));
          adapter->memory_bytes = 56;
          return adapter;
        });
  }
  TemporaryFolder folder_;
  ModelLayers layers_;
  int reads_ = 0, attached_ = 0;
};

TEST_F(AdapterTiersTest, WhatLeftASmallDeviceComesBackFromTheHost) {
  AdapterTiers tiers({.attached = 60, .files = 1 << 20});  // the device has room for one
  for (const std::string name : {"a", "b", "a", "b", "b"}) EXPECT_NE(get(tiers, name), nullptr);
  EXPECT_EQ(reads_, 2);
  EXPECT_EQ(attached_, 4);
  EXPECT_EQ(tiers.attached().hits, 1u);
  EXPECT_EQ(tiers.attached().evictions, 3u);
  EXPECT_EQ(tiers.attached().bytes, 56u);
  EXPECT_EQ(tiers.files().hits, 2u);
  EXPECT_EQ(tiers.files().misses, 2u);
  EXPECT_EQ(tiers.files().adapters, 2u);
  EXPECT_GT(tiers.files().bytes, 112u);
}

TEST_F(AdapterTiersTest, WithoutASecondTierFilesAreReadAgain) {
  AdapterTiers tiers({.attached = 60, .files = {}});
  for (const std::string name : {"a", "b", "a"}) get(tiers, name);
  EXPECT_EQ(reads_, 3);
  EXPECT_EQ(tiers.files().misses, 0u);
}

TEST_F(AdapterTiersTest, AFileThatCannotBeAttachedStaysReadAndIsTriedAgain) {
  AdapterTiers tiers({.attached = 60, .files = 1 << 20});
  const auto read = [&] {
    ++reads_;
    return AdapterFile::read(folder_.path() / "a.safetensors").value_or_throw();
  };
  const auto refuse = [](const AdapterFile&) -> AdapterCache::Pointer {
    throw Failure(ErrorCode::kInvalidModel, "does not fit");
  };
  EXPECT_THROW(tiers.get("a", read, refuse), Failure);
  EXPECT_NE(get(tiers, "a"), nullptr);
  EXPECT_EQ(reads_, 1);
}

// On a CPU an attached LoRA is its file's memory and no more.
TEST_F(AdapterTiersTest, AttachedOnTheHostItKeepsTheFilesBytes) {
  const auto file = AdapterFile::read(folder_.path() / "a.safetensors").value_or_throw();
  EXPECT_EQ(attach(*file, layers_, {})->memory_bytes, file->bytes());
}

}  // namespace
}  // namespace limner::engine::lora
