#include "cli/model_paths.h"

#include <gtest/gtest.h>

#include <fstream>

#include <unistd.h>

namespace limner::cli {
namespace {

namespace fs = std::filesystem;

class ModelPaths : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("limner_model_paths_" + std::to_string(getpid()));
    fs::create_directories(folder_ / "miniature");
    std::ofstream(folder_ / "miniature" / "model_index.json") << "{}";
    fs::create_directories(folder_ / "not_a_model");
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(ModelPaths, ANameIsLookedUpInTheFolders) {
  const auto found = resolve_model("miniature", {folder_});
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(*found, folder_ / "miniature");
  EXPECT_EQ(find_models({folder_}), std::vector<fs::path>{folder_ / "miniature"});
}

TEST_F(ModelPaths, AWrongNameGetsTheNearOne) {
  const auto found = resolve_model("minature", {folder_});
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.error().code, ErrorCode::kNotFound);
  EXPECT_NE(found.error().message.find("did you mean miniature"), std::string::npos);
}

TEST_F(ModelPaths, APathMustExist) {
  EXPECT_TRUE(resolve_model(folder_ / "miniature", {}).ok());
  EXPECT_FALSE(resolve_model(folder_ / "nowhere", {}).ok());
  EXPECT_FALSE(resolve_model("", {folder_}).ok());
}

}  // namespace
}  // namespace limner::cli
