// Volumes with one damage each, in a folder that goes away.
#include "runpod/volume/check.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/file_hash.h"
#include "engine/weights/safetensors.h"
#include "runpod/volume/places.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;
using Kind = Finding::Kind;

class Volume : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "limner-volume-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    adapter("loras/style.safetensors");
    adapter("loras/more/detail.safetensors");
    weights("embeddings/word.safetensors", "emb_params");
    write_down();
  }
  void TearDown() override { fs::remove_all(folder_); }

  void weights(const std::string& path, const std::string& tensor) const {
    fs::create_directories((folder_ / path).parent_path());
    const std::vector<std::byte> bytes(64);
    ASSERT_TRUE(engine::weights::write_safetensors(
                    folder_ / path, {{tensor, engine::weights::DType::kF32, {4, 4}, bytes}})
                    .ok());
  }
  void adapter(const std::string& path) const {
    fs::create_directories((folder_ / path).parent_path());
    const std::vector<std::byte> bytes(16);
    const auto dtype = engine::weights::DType::kF32;
    ASSERT_TRUE(engine::weights::write_safetensors(
                    folder_ / path, {{"lora_unet_mid.lora_up.weight", dtype, {4, 1}, bytes},
                                     {"lora_unet_mid.lora_down.weight", dtype, {1, 4}, bytes}})
                    .ok());
  }
  void text(const std::string& path, const std::string& content) const {
    fs::create_directories((folder_ / path).parent_path());
    std::ofstream(folder_ / path) << content;
  }
  void write_down() const {
    VolumeManifest manifest;
    const std::vector<std::string> files = volume_files(folder_).value();
    for (const std::string& path : files) {
      manifest.files[path] = {fs::file_size(folder_ / path), file_sha256(folder_ / path).value(),
                              "", ""};
    }
    text(kVolumeManifest, to_text(manifest));
  }

  VolumeReport check(bool quick = false, std::vector<Mount> mounts = {}) const {
    CheckRequest request;
    request.volume = folder_;
    request.quick = quick;
    request.mounts = std::move(mounts);
    request.image_folders = {"/app/models"};
    return check_volume(request).value();
  }
  // The volume has this one damage and no other.
  void expect(Kind kind, const std::string& path, const std::string& words,
              const VolumeReport& report) const {
    ASSERT_EQ(report.problems.size(), 1u);
    const Finding& found = report.problems.front();
    EXPECT_STREQ(name(found.kind), name(kind));
    EXPECT_EQ(found.path, path);
    EXPECT_NE(found.message.find(words), std::string::npos) << found.message;
    EXPECT_FALSE(found.advice.empty());
  }
  void expect(Kind kind, const std::string& path, const std::string& words) const {
    expect(kind, path, words, check());
  }

  fs::path folder_;
};

TEST_F(Volume, AWholeOneHasNoProblems) {
  const VolumeReport report = check();
  EXPECT_TRUE(report.problems.empty()) << report.problems.front().message;
  EXPECT_TRUE(report.notes.empty());
  EXPECT_EQ(report.files, 3u);
}

TEST_F(Volume, ThatIsNotThereOrEmptyIsTold) {
  fs::remove_all(folder_);
  expect(Kind::kMissing, "", "is not there");
  fs::create_directory(folder_);
  expect(Kind::kMissing, "", "is empty");
  fs::remove_all(folder_);
  std::ofstream(folder_.string()) << "x";
  expect(Kind::kUnreadable, "", "is no folder");
}

TEST_F(Volume, WithoutItsManifestIsUnfinished) {
  fs::remove(folder_ / kVolumeManifest);
  expect(Kind::kMissing, kVolumeManifest, "not come to its end");
  text(kVolumeManifest, "{\"format\": 9, \"files\": {}}");
  expect(Kind::kDamaged, kVolumeManifest, "format 9");
}

TEST_F(Volume, FilesThatWentAreMissing) {
  fs::remove(folder_ / "loras/style.safetensors");
  expect(Kind::kMissing, "loras/style.safetensors", "is not there");
}

TEST_F(Volume, AModelThatWentIsOneProblem) {
  for (const char* name : {"model_index.json", "unet/config.json", "vae/config.json"})
    text(std::string("models/m/") + name, "{}");
  write_down();
  fs::remove_all(folder_ / "models/m");
  expect(Kind::kMissing, "models/m", "nor any of its 3 files");
}

TEST_F(Volume, AFileAtAnotherPlaceIsFound) {
  fs::rename(folder_ / "loras/style.safetensors", folder_ / "style.safetensors");
  expect(Kind::kMisplaced, "loras/style.safetensors", "at style.safetensors");
}

TEST_F(Volume, AShortFileIsHalfWrittenAndALongOneAnother) {
  const fs::path file = folder_ / "loras/style.safetensors";
  const auto bytes = fs::file_size(file);
  fs::resize_file(file, bytes - 9);
  expect(Kind::kHalfWritten, "loras/style.safetensors", "not written to the end", check(true));
  fs::resize_file(file, bytes + 9);
  expect(Kind::kDamaged, "loras/style.safetensors", "another file");
}

TEST_F(Volume, AFlippedBitIsSeenByItsHashAlone) {
  std::fstream file(folder_ / "loras/style.safetensors", std::ios::in | std::ios::out);
  file.seekp(-3, std::ios::end);
  file.put('x');
  file.close();
  expect(Kind::kDamaged, "loras/style.safetensors", "other bytes");
  EXPECT_TRUE(check(true).problems.empty());
}

TEST_F(Volume, LinksThatLeadNowhereAreTold) {
  fs::remove(folder_ / "loras/style.safetensors");
  fs::create_symlink("/nowhere/style", folder_ / "loras/style.safetensors");
  expect(Kind::kMissing, "loras/style.safetensors", "a link to /nowhere/style");
}

TEST_F(Volume, WhatLiesInTheWrongFolderIsMisplaced) {
  adapter("models/a.safetensors");
  expect(Kind::kMisplaced, "models/a.safetensors", "is an adapter");
  fs::remove(folder_ / "models/a.safetensors");
  weights("loras/b.safetensors", "model.diffusion_model.input_blocks.0.0.weight");
  expect(Kind::kMisplaced, "loras/b.safetensors", "is a model");
  fs::remove(folder_ / "loras/b.safetensors");
  weights("c.safetensors", "conditioner.embedders.0.x");
  expect(Kind::kMisplaced, "c.safetensors", "looks for those in models/");
}

TEST_F(Volume, LayoutsOfOtherProgramsAreExplained) {
  weights("models/checkpoints/a.safetensors", "model.diffusion_model.x");
  expect(Kind::kMisplaced, "models/checkpoints", "layout of another program");
  fs::remove_all(folder_ / "models/checkpoints");
  weights("models/vae/a.safetensors", "decoder.x");
  expect(Kind::kUnused, "models/vae", "not their parts");
  fs::remove_all(folder_ / "models/vae");
  weights("models/sdxl/a.safetensors", "model.diffusion_model.x");
  expect(Kind::kMisplaced, "models/sdxl", "one folder too deep");
  fs::remove_all(folder_ / "models/sdxl");
  text("models/models--owner--name/refs/main", "abc");
  expect(Kind::kMisplaced, "models/models--owner--name", "hub's cache");
}

TEST_F(Volume, ThePlatformsModelCacheIsANote) {
  text("huggingface-cache/hub/models--owner--name/refs/main", "abc");
  const VolumeReport report = check();
  EXPECT_TRUE(report.problems.empty());
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_NE(report.notes.front().message.find("owner/name"), std::string::npos);
}

TEST_F(Volume, LeftoversAndBrokenFilesAreTold) {
  text("models/a.safetensors.part", "x");
  expect(Kind::kHalfWritten, "models/a.safetensors.part", "did not end");
  fs::remove(folder_ / "models/a.safetensors.part");
  text("models/.name.coming/unet/x", "x");
  expect(Kind::kHalfWritten, "models/.name.coming", "did not end");
  fs::remove_all(folder_ / "models/.name.coming");
  text(".limner-setup.json", "{}");
  expect(Kind::kHalfWritten, ".limner-setup.json", "did not end");
  fs::remove(folder_ / ".limner-setup.json");
  text("models/a.ckpt", "x");
  expect(Kind::kUnused, "models/a.ckpt", "run code");
  fs::remove(folder_ / "models/a.ckpt");
  adapter("loras/new.safetensors");
  fs::resize_file(folder_ / "loras/new.safetensors", 100);
  expect(Kind::kHalfWritten, "loras/new.safetensors", "the file is cut off");
  fs::remove(folder_ / "loras/new.safetensors");
  text("loras/page.safetensors", "<html>no such file</html>");
  EXPECT_EQ(check().problems.size(), 1u);
}

TEST_F(Volume, AFileThatNobodyWroteDownIsANote) {
  adapter("loras/new.safetensors");
  const VolumeReport report = check();
  EXPECT_TRUE(report.problems.empty());
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_EQ(report.notes.front().path, "loras/new.safetensors");
}

TEST_F(Volume, AMountInsideHidesWhatIsBelowIt) {
  fs::remove(folder_ / "loras/style.safetensors");
  expect(Kind::kHidden, "loras", "1 of its files",
         check(false, {{"/", "0:1", "overlay", "overlay"},
                       {fs::canonical(folder_) / "loras", "0:2", "tmpfs", "tmpfs"}}));
}

TEST_F(Volume, AMountOverTheVolumeItselfIsTold) {
  const fs::path here = fs::canonical(folder_);
  expect(Kind::kHidden, "", "mounted 2 times, and the last mount (tmpfs",
         check(false, {{here, "0:1", "nfs4", "server:/volume"}, {here, "0:2", "tmpfs", "tmpfs"}}));
  EXPECT_TRUE(check(false, {{here, "0:1", "nfs4", "server:/volume"}}).problems.empty());
}

TEST_F(Volume, AMountOverTheImagesModelsIsTold) {
  const Mount root = {"/", "0:1", "overlay", "overlay"};
  expect(Kind::kHidden, "/app/models", "hides whatever this image has",
         check(false, {root, {"/app", "0:2", "nfs4", "server:/volume"}}));
  EXPECT_TRUE(check(false, {root, {"/mnt", "0:2", "nfs4", "x"}}).problems.empty());
}

}  // namespace
}  // namespace limner::runpod
