#include "engine/weights/load_bytes.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

#include "engine/weights/testing.h"

namespace limner::engine::weights {
namespace {

using testing::FloatTensor;
using testing::TemporaryFolder;

class LoadBytesTest : public ::testing::Test {
 protected:
  // Tensors from a few bytes to several pieces and enough in all for several threads.
  LoadBytesTest() {
    std::mt19937 random(1);
    for (const std::int64_t size : {1, 3, 700'000, 131'072, 131'071, 2, 900'001, 5}) {
      FloatTensor tensor{fmt::format("t{}", tensors_.size()), {size}, {}};
      for (std::int64_t i = 0; i < size; ++i) {
        tensor.values.push_back(static_cast<float>(random() % 1000) - 500.0f);
      }
      tensors_.push_back(tensor);
    }
  }
  Result<SafetensorsFile> loaded() {
    const auto path = folder_.path() / "a.safetensors";
    testing::write_floats(path, tensors_);
    auto file = SafetensorsFile::open(path, SafetensorsFile::Backing::kMemory);
    if (!file.ok()) return file.error();
    if (const auto done = file->load(); !done.ok()) return done.error();
    return file;
  }
  TemporaryFolder folder_;
  std::vector<FloatTensor> tensors_;
};

TEST_F(LoadBytesTest, EveryByteIsTheFilesAndOutlivesIt) {
  auto file = loaded();
  ASSERT_TRUE(file.ok()) << file.error().message;
  std::filesystem::resize_file(file->path(), 16);  // a map would raise SIGBUS
  const auto keep = file->memory();
  const auto views = file->tensors();
  {
    const SafetensorsFile gone = std::move(*file);
  }
  for (const FloatTensor& tensor : tensors_) {
    const auto bytes = views.at(tensor.name).bytes;
    ASSERT_EQ(bytes.size(), tensor.values.size() * 4);
    EXPECT_EQ(std::memcmp(bytes.data(), tensor.values.data(), bytes.size()), 0) << tensor.name;
  }
}

TEST_F(LoadBytesTest, ANanAnywhereIsFoundAndTheFirstTensorThatHasOneIsNamed) {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                       -std::numeric_limits<float>::infinity()};
  std::mt19937 random(2);
  for (std::size_t t = 0; t < tensors_.size(); ++t) {
    for (const std::size_t place :
         {std::size_t{0}, tensors_[t].values.size() - 1, random() % tensors_[t].values.size()}) {
      const float kept = tensors_[t].values[place];
      tensors_[t].values[place] = bad[place % 2];
      const auto file = loaded();
      tensors_[t].values[place] = kept;
      ASSERT_FALSE(file.ok()) << t << " " << place;
      EXPECT_NE(file.error().message.find(
                    fmt::format("a.safetensors: tensor 't{}' holds a NaN or an infinity", t)),
                std::string::npos)
          << file.error().message;
    }
  }
  tensors_[2].values[5] = bad[0];
  tensors_[6].values[0] = bad[0];
  EXPECT_NE(loaded().error().message.find("'t2'"), std::string::npos);
}

TEST_F(LoadBytesTest, AFileCutOffBetweenOpeningAndLoadingIsRefused) {
  const auto path = folder_.path() / "a.safetensors";
  testing::write_floats(path, tensors_);
  auto file = SafetensorsFile::open(path, SafetensorsFile::Backing::kMemory);
  ASSERT_TRUE(file.ok());
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 4000);
  const auto done = file->load();
  ASSERT_FALSE(done.ok());
  EXPECT_NE(done.error().message.find("became shorter"), std::string::npos);
}

// Offsets need not be multiples of the element size.
TEST_F(LoadBytesTest, TensorsAtOddPlacesAreRead) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                             R"("b":{"dtype":"F16","shape":[2],"data_offsets":[3,7]}})";
  const auto open = [&](std::string_view data) {
    auto file = SafetensorsFile::open(
        folder_.write("odd.safetensors", testing::raw_safetensors(header, data)),
        SafetensorsFile::Backing::kMemory);
    return std::move(*file);
  };
  SafetensorsFile good = open(std::string_view("\xff\xff\xff\x00\x3c\x00\x40", 7));
  EXPECT_TRUE(good.load().ok());
  EXPECT_EQ(std::memcmp(good.tensors().at("b").bytes.data(), "\x00\x3c\x00\x40", 4), 0);
  EXPECT_FALSE(open(std::string_view("\x00\x00\x00\x00\x3c\x00\x7c", 7)).load().ok());
}

}  // namespace
}  // namespace limner::engine::weights
