#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/sha256.h"
#include "engine/weights/safetensors.h"
#include "engine/weights/testing.h"

namespace limner::engine::weights {
namespace {

using testing::TemporaryFolder;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string content(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

// Written by the Python package safetensors 0.8: save({"b": F32 [2] of 1, 2; "a": F16 [2,1] of 1,
// 2; "c": I64 [] of 3}, {"format": "pt"}).
TEST(WriteSafetensors, WritesTheBytesOfTheReference) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "x.safetensors";
  const std::string b("\0\0\x80\x3f\0\0\0\x40", 8), a("\0\x3c\0\x40", 4), c("\3\0\0\0\0\0\0\0", 8);
  write_safetensors(file,
                    {{"b", DType::kF32, {2}, bytes_of(b)},
                     {"a", DType::kF16, {2, 1}, bytes_of(a)},
                     {"c", DType::kI64, {}, bytes_of(c)}},
                    {{"format", "pt"}})
      .value_or_throw();
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"c":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"a":{"dtype":"F16","shape":[2,1],"data_offsets":[16,20]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(content(file), testing::raw_safetensors(padded, c + b + a));
}

TEST(WriteSafetensors, WhatIsWrittenIsReadBack) {
  const TemporaryFolder folder;
  std::mt19937 random(42);
  for (int round = 0; round < 60; ++round) {
    std::map<std::string, std::pair<TensorToWrite, std::string>> made;
    const std::size_t count = random() % 12;
    for (std::size_t i = 0; i < count; ++i) {
      const auto dtype = static_cast<DType>(random() % (static_cast<unsigned>(DType::kC64) + 1));
      std::vector<std::int64_t> shape(random() % 4);
      std::uint64_t elements = 1;
      for (std::int64_t& size : shape) {
        size = random() % 9 == 0 ? 0 : static_cast<std::int64_t>(random() % 6 + 1) * 8;
        elements *= static_cast<std::uint64_t>(size);
      }
      if (elements * bits(dtype) % 8 != 0) continue;
      std::string data(elements * bits(dtype) / 8, '\0');
      for (char& byte : data) byte = static_cast<char>(random());
      const std::string name = "t\"\\/\xc3\xa4" + std::to_string(random() % 1000);
      made[name] = {{name, dtype, shape, {}}, data};
    }
    std::vector<TensorToWrite> tensors;
    for (auto& [name, entry] : made) {
      entry.first.bytes = bytes_of(entry.second);
      tensors.push_back(entry.first);
    }
    const auto path = folder.path() / "round.safetensors";
    write_safetensors(path, tensors, {{"k\n", "v\t\xe2\x82\xac"}}).value_or_throw();
    const auto file = SafetensorsFile::open(path);
    ASSERT_TRUE(file.ok()) << file.error().message;
    EXPECT_EQ(file->tensors().size(), made.size());
    EXPECT_EQ(file->metadata().at("k\n"), "v\t\xe2\x82\xac");
    for (const auto& [name, view] : file->tensors()) {
      const auto& [tensor, data] = made.at(name);
      EXPECT_EQ(view.dtype, tensor.dtype);
      EXPECT_EQ(view.shape, tensor.shape);
      EXPECT_EQ(std::string(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()),
                data);
      // Wide dtypes come first, so that elements of whole bytes are aligned in the map.
      if (bits(view.dtype) >= 8) {
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(view.bytes.data()) % (bits(view.dtype) / 8), 0u);
      }
    }
  }
}

TEST(WriteSafetensors, RefusesWhatNobodyCouldReadAndLeavesTheOldFile) {
  const TemporaryFolder folder;
  const auto path = folder.write("x.safetensors", "old");
  const std::string data = "12345678";
  const auto refused = [&](std::vector<TensorToWrite> tensors,
                           ErrorCode want = ErrorCode::kInvalidArgument) {
    const auto result = write_safetensors(path, std::move(tensors));
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(name(result.error().code), name(want)) << result.error().message;
    EXPECT_EQ(content(path), "old");
  };
  refused({{"a", DType::kF32, {3}, bytes_of(data)}});
  refused({{"a", DType::kF32, {-2}, bytes_of(data)}});
  refused({{"a", DType::kF64, {1}, bytes_of(data)}, {"a", DType::kF64, {1}, bytes_of(data)}});
  refused({{"a\xff", DType::kF64, {1}, bytes_of(data)}});
  refused({{"__metadata__", DType::kF64, {1}, bytes_of(data)}});
  refused({{std::string(2000, 'n'), DType::kF64, {1}, bytes_of(data)}});
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    files += entry.is_regular_file();
  EXPECT_EQ(files, 1u);  // nothing half-written is left behind
}

// An interrupted write of four tensors of 40 MiB goes on after the last safe point.
TEST(WriteSafetensors, GoesOnFromWhatAnInterruptionLeft) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "x.safetensors";
  const auto partial = folder.path() / "x.safetensors.partial";
  std::vector<TensorPlan> plans;
  for (const char* name : {"a", "b", "c", "d"}) plans.push_back({name, DType::kF32, {10 << 20}});
  std::vector<std::byte> bytes(40 << 20);
  std::string made, kept;
  const auto write = [&](const std::string& key, const std::string& stop_at) {
    made = kept = "";
    return stream_safetensors(
        path, plans,
        [&](const TensorPlan& plan) -> std::span<const std::byte> {
          if (plan.name == stop_at) throw Failure(ErrorCode::kCancelled, "stop");
          made += plan.name;
          std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(plan.name[0]));
          return bytes;
        },
        {.metadata = {}, .resume_key = key, .kept = [&](const TensorPlan& plan) {
           kept += plan.name;
         }});
  };
  EXPECT_FALSE(write("key", "d").ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  // Another key, or a kept part that changed: everything is written again.
  EXPECT_FALSE(write("other", "c").ok());
  EXPECT_EQ(kept, "");
  EXPECT_FALSE(write("other", "d").ok());
  EXPECT_EQ(kept, "ab") << "the flush comes after 64 MiB";
  {
    std::fstream damaged(partial, std::ios::in | std::ios::out | std::ios::binary);
    damaged.seekp(1 << 20) << "x";
  }
  const auto whole = write("other", "");
  ASSERT_TRUE(whole.ok()) << whole.error().message;
  EXPECT_EQ(made, "abcd");
  const std::string wanted = whole->sha256;
  std::filesystem::remove(path);
  EXPECT_FALSE(write("other", "d").ok());
  const auto resumed = write("other", "");
  ASSERT_TRUE(resumed.ok()) << resumed.error().message;
  EXPECT_EQ(kept + made, "abcd");
  EXPECT_EQ(kept, "ab");
  EXPECT_EQ(resumed->sha256, wanted);
  EXPECT_EQ(sha256_hex(bytes_of(content(path))), wanted);
  EXPECT_FALSE(std::filesystem::exists(partial));
  EXPECT_FALSE(std::filesystem::exists(partial.string() + ".json"));
}

TEST(WriteSafetensors, SaysWhenItCannotWrite) {
  const TemporaryFolder folder;
  const std::string data = "12345678";
  const std::vector<TensorToWrite> tensors = {{"a", DType::kF64, {1}, bytes_of(data)}};
  const auto nowhere = write_safetensors(folder.path() / "none" / "x.safetensors", tensors);
  ASSERT_FALSE(nowhere.ok());
  EXPECT_EQ(nowhere.error().code, ErrorCode::kIo);
  std::filesystem::create_directory(folder.path() / "folder");
  folder.write("folder/x", "");
  const auto onto_folder = write_safetensors(folder.path() / "folder", tensors);
  ASSERT_FALSE(onto_folder.ok());
  EXPECT_EQ(onto_folder.error().code, ErrorCode::kIo);
}

}  // namespace
}  // namespace limner::engine::weights
