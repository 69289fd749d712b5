#include "runpod/volume/manifest.h"

#include <gtest/gtest.h>

namespace limner::runpod {
namespace {

const std::string kHash(64, 'a');

std::string manifest_of(const std::string& path, const std::string& hash, int format = 1) {
  return R"({"format": )" + std::to_string(format) + R"(, "files": {")" + path +
         R"(": {"bytes": 5, "sha256": ")" + hash + R"("}}})";
}

TEST(VolumeManifest, ComesBackAsItWasWritten) {
  VolumeManifest manifest;
  manifest.written = utc_now();
  manifest.files["models/a.safetensors"] = {5, kHash, "https://example.com/a", "2026-01-02"};
  manifest.asked["model 0123"] = "models/a.safetensors";
  const auto read = parse_manifest(to_text(manifest), "m");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->written, manifest.written);
  EXPECT_EQ(read->asked, manifest.asked);
  const VolumeFile& file = read->files.at("models/a.safetensors");
  EXPECT_EQ(file.bytes, 5u);
  EXPECT_EQ(file.sha256, kHash);
  EXPECT_EQ(file.source, "https://example.com/a");
}

TEST(VolumeManifest, TimesAreOfRfc3339) {
  EXPECT_EQ(utc_now().size(), std::string("2026-11-21T18:00:00Z").size());
  EXPECT_EQ(utc_now().back(), 'Z');
}

TEST(VolumeManifest, WhatCannotBeOneIsRefused) {
  EXPECT_TRUE(parse_manifest(manifest_of("models/a", kHash), "m").ok());
  for (const char* path : {"../a", "/etc/passwd", "models/../../a", ""})
    EXPECT_FALSE(parse_manifest(manifest_of(path, kHash), "m").ok()) << path;
  EXPECT_FALSE(parse_manifest(manifest_of("a", "xyz"), "m").ok());
  EXPECT_FALSE(parse_manifest(manifest_of("a", std::string(64, 'A')), "m").ok());
  EXPECT_FALSE(parse_manifest("{}", "m").ok());
  EXPECT_FALSE(parse_manifest("[1", "m").ok());
  EXPECT_FALSE(parse_manifest(R"({"format": 1, "files": {"a": 3}})", "m").ok());
  const auto newer = parse_manifest(manifest_of("a", kHash, 2), "m");
  ASSERT_FALSE(newer.ok());
  EXPECT_NE(newer.error().message.find("format 2"), std::string::npos);
}

}  // namespace
}  // namespace limner::runpod
