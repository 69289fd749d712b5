#include "platform/data_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace limner::platform {
namespace {

namespace fs = std::filesystem;

class DataFolder : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(root_); }
  void TearDown() override { fs::remove_all(root_); }
  const fs::path root_ =
      fs::temp_directory_path() / ("limner-data-folder-" + std::to_string(getpid()));
};

TEST_F(DataFolder, IsMadeForItsOwnerAlone) {
  const fs::path folder = root_ / "a" / "b";
  make_data_folder(folder);
  EXPECT_EQ(fs::status(folder).permissions(), fs::perms::owner_all);
}

TEST_F(DataFolder, KeepsTheRightsItHas) {
  const auto shared = fs::perms::owner_all | fs::perms::group_all;
  fs::permissions(root_, shared);
  make_data_folder(root_);
  EXPECT_EQ(fs::status(root_).permissions(), shared);
}

TEST_F(DataFolder, WhereAFileLiesIsRefusedInASentence) {
  std::ofstream(root_ / "file") << "text";
  try {
    make_data_folder(root_ / "file" / "data");
    FAIL() << "made a folder in a file";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kIo);
    EXPECT_NE(failure.error().message.find("file/data' cannot be made: Not a directory"),
              std::string::npos)
        << failure.error().message;
  }
}

}  // namespace
}  // namespace limner::platform
