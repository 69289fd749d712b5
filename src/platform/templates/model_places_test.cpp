#include "platform/templates/model_places.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

namespace limner::platform {
namespace {

namespace fs = std::filesystem;

class Places : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "limner-places-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(root_); }

  void make(const fs::path& folder, const std::string& content) {
    fs::create_directories(folder / "unet");
    std::ofstream(folder / "model_index.json") << content;
    std::ofstream(folder / "unet" / "w") << std::string(1000, 'x');
  }
  PlaceRequest request() {
    return {.dir = "m", .volume = root_ / "volume", .images = {root_ / "image"}};
  }
  static std::string index(const fs::path& folder) {
    std::string text;
    std::getline(std::ifstream(folder / "model_index.json"), text);
    return text;
  }

  fs::path root_;
};

TEST_F(Places, TheVolumeComesFirst) {
  make(root_ / "volume" / "m", "volume");
  make(root_ / "image" / "m", "image");
  const auto place = place_model(request());
  ASSERT_TRUE(place.ok());
  EXPECT_EQ(place->folder, root_ / "volume" / "m");
  EXPECT_FALSE(place->copied);
}

TEST_F(Places, TheImagesModelIsCopiedOverWhenThereIsRoom) {
  make(root_ / "image" / "m", "image");
  const auto place = place_model(request());
  ASSERT_TRUE(place.ok());
  EXPECT_TRUE(place->copied);
  EXPECT_EQ(place->folder, root_ / "volume" / "m");
  EXPECT_EQ(index(place->folder), "image");
  EXPECT_EQ(fs::file_size(place->folder / "unet" / "w"), 1000u);
  EXPECT_NE(place->said.find("copied from"), std::string::npos);
  // Nothing half-made stays.
  EXPECT_EQ(std::distance(fs::directory_iterator(root_ / "volume"), fs::directory_iterator()), 1);
}

TEST_F(Places, AnOldModelOnTheVolumeIsReplaced) {
  make(root_ / "image" / "m", "new");
  make(root_ / "volume" / "m", "old");
  PlaceRequest asked = request();
  asked.is_right = [](const fs::path& folder) { return index(folder) == "new"; };
  const auto place = place_model(asked);
  ASSERT_TRUE(place.ok());
  EXPECT_EQ(index(root_ / "volume" / "m"), "new");
}

TEST_F(Places, WithoutRoomItIsUsedInPlaceAndSaysSo) {
  make(root_ / "image" / "m", "image");
  PlaceRequest asked = request();
  asked.free_bytes = [](const fs::path&) { return std::optional<std::uint64_t>(1000); };
  const auto place = place_model(asked);
  ASSERT_TRUE(place.ok());
  EXPECT_EQ(place->folder, root_ / "image" / "m");
  EXPECT_NE(place->said.find("used in place"), std::string::npos);
  EXPECT_NE(place->said.find("0.00 GiB free"), std::string::npos);
}

TEST_F(Places, AVolumeThatCannotBeWrittenIsNoFailure) {
  make(root_ / "image" / "m", "image");
  std::ofstream(root_ / "volume") << "a file, not a folder";
  const auto place = place_model(request());
  ASSERT_TRUE(place.ok());
  EXPECT_EQ(place->folder, root_ / "image" / "m");
  EXPECT_FALSE(place->said.empty());
}

TEST_F(Places, NowhereIsAnErrorThatNamesThePlaces) {
  const auto place = place_model(request());
  ASSERT_FALSE(place.ok());
  EXPECT_EQ(place.error().code, ErrorCode::kNotFound);
  EXPECT_NE(place.error().message.find((root_ / "image").string()), std::string::npos);
}

}  // namespace
}  // namespace limner::platform
