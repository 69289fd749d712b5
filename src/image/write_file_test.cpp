#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "image/encode.h"

namespace limner::image {
namespace {

namespace fs = std::filesystem;

class WriteFile : public testing::Test {
 protected:
  WriteFile() {
    std::string name = (fs::temp_directory_path() / "limner-write-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~WriteFile() override { fs::remove_all(folder_); }

  static std::string read(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_;
  const std::vector<std::uint8_t> bytes_ = {'n', 'e', 'w'};
};

TEST_F(WriteFile, WritesAndReplacesAndLeavesNothingElse) {
  const fs::path path = folder_ / "a.png";
  std::ofstream(path) << "an older and longer file";
  ASSERT_TRUE(write_file(path, bytes_).ok());
  EXPECT_EQ(read(path), "new");
  EXPECT_EQ(files(), 1u);
  ASSERT_TRUE(write_file(path, {}).ok());
  EXPECT_EQ(fs::file_size(path), 0u);
}

TEST_F(WriteFile, TheFileHasTheUsualPermissions) {
  const mode_t mask = umask(027);
  const auto written = write_file(folder_ / "a", bytes_);
  umask(mask);
  ASSERT_TRUE(written.ok());
  struct stat status{};
  ASSERT_EQ(stat((folder_ / "a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0640u);
}

TEST_F(WriteFile, ALongNameAndANameAloneAreWritten) {
  EXPECT_TRUE(write_file(folder_ / std::string(255, 'n'), bytes_).ok());
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  const auto written = write_file("alone.png", bytes_);
  fs::current_path(before);
  EXPECT_TRUE(written.ok());
  EXPECT_EQ(read(folder_ / "alone.png"), "new");
}

TEST_F(WriteFile, ALinkStaysALink) {
  std::ofstream(folder_ / "target") << "old";
  fs::create_symlink(folder_ / "target", folder_ / "link");
  ASSERT_TRUE(write_file(folder_ / "link", bytes_).ok());
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(read(folder_ / "target"), "new");
}

TEST_F(WriteFile, AMissingFolderIsNamed) {
  const auto written = write_file(folder_ / "no" / "a.png", bytes_);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, ErrorCode::kNotFound);
  EXPECT_NE(written.error().message.find("No such file or directory"), std::string::npos);
  EXPECT_NE(written.error().message.find((folder_ / "no" / "a.png").string()), std::string::npos);
}

TEST_F(WriteFile, AFolderCannotBeWritten) {
  EXPECT_EQ(write_file(folder_, bytes_).error().code, ErrorCode::kIo);
  EXPECT_EQ(files(), 0u);
}

TEST_F(WriteFile, AFullDiskIsAnError) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full";
  const auto written = write_file("/dev/full", bytes_);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, ErrorCode::kIo);
  EXPECT_NE(written.error().message.find("No space left on device"), std::string::npos);
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

TEST_F(WriteFile, AFolderWithoutPermissionIsAnError) {
  if (geteuid() == 0) GTEST_SKIP() << "root may write anywhere";
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  const auto written = write_file(folder_ / "a", bytes_);
  fs::permissions(folder_, fs::perms::owner_all);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, ErrorCode::kIo);
}

}  // namespace
}  // namespace limner::image
