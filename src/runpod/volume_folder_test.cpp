#include "runpod/volume_folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <optional>
#include <thread>

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;
using Lookup = VolumeFolder::Lookup;

std::vector<std::uint8_t> bytes(std::string_view text) {
  return {text.begin(), text.end()};
}

// Both ways of looking up a path are held to the same.
class Volume : public ::testing::TestWithParam<Lookup> {
 protected:
  Volume() {
    std::string name = (fs::temp_directory_path() / "limner-volume-XXXXXX").string();
    outside_ = mkdtemp(name.data());
    root_ = outside_ / "volume";
    fs::create_directories(root_ / "in");
    put(outside_ / "secret.png", "secret");
    put(root_ / "in/me.png", "me");
    volume_.emplace(VolumeFolder::open(root_, GetParam()).value());
  }
  ~Volume() override { fs::remove_all(outside_); }

  static void put(const fs::path& file, std::string_view text) { std::ofstream(file) << text; }
  static std::string content(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  std::string read(std::string_view path) const {
    const auto got = volume_->read(path, 100);
    return got.ok() ? std::string(got->begin(), got->end()) : "";
  }
  ErrorCode read_error(std::string_view path) const {
    const auto got = volume_->read(path, 100);
    EXPECT_FALSE(got.ok()) << path;
    return got.ok() ? ErrorCode::kInternal : got.error().code;
  }
  ErrorCode write_error(std::string_view path) const {
    EXPECT_FALSE(volume_->check_target(path).ok()) << path;
    const auto done = volume_->write(path, bytes("x"));
    EXPECT_FALSE(done.ok()) << path;
    return done.ok() ? ErrorCode::kInternal : done.error().code;
  }

  fs::path outside_, root_;
  std::optional<VolumeFolder> volume_;
};

TEST_P(Volume, ReadsAndWritesPlainFilesBelowIt) {
  EXPECT_EQ(read("in/me.png"), "me");
  EXPECT_TRUE(volume_->check_target("out/deep/a.png").ok());
  EXPECT_FALSE(fs::exists(root_ / "out"));
  EXPECT_TRUE(volume_->write("out/deep/a.png", bytes("one")).ok());
  EXPECT_TRUE(volume_->write("out/deep/a.png", bytes("two")).ok());
  EXPECT_EQ(content(root_ / "out/deep/a.png"), "two");
  EXPECT_TRUE(volume_->write("b.png", bytes("b")).ok());
  EXPECT_EQ(std::distance(fs::directory_iterator(root_ / "out/deep"), {}), 1);
  EXPECT_EQ(read_error("in/none.png"), ErrorCode::kNotFound);
  EXPECT_EQ(read_error("none/me.png"), ErrorCode::kNotFound);
}

TEST_P(Volume, RefusesPathsThatLeaveIt) {
  for (const char* path : {"", "/etc/passwd", "..", "../secret.png", "in/../../secret.png", "in/..",
                           "./in/me.png", "in//me.png", "in/", "in/.", "in/\n"}) {
    EXPECT_EQ(read_error(path), ErrorCode::kInvalidArgument) << path;
    EXPECT_EQ(write_error(path), ErrorCode::kInvalidArgument) << path;
  }
}

TEST_P(Volume, FollowsNoLink) {
  fs::create_symlink(outside_ / "secret.png", root_ / "absolute.png");
  fs::create_symlink("../secret.png", root_ / "relative.png");
  fs::create_symlink("in/me.png", root_ / "inside.png");
  fs::create_directory_symlink(outside_, root_ / "up");
  fs::create_directory_symlink("in", root_ / "alias");
  fs::create_directory_symlink("/proc/self/root", root_ / "magic");
  for (const char* path : {"absolute.png", "relative.png", "inside.png", "up/secret.png",
                           "alias/me.png", "magic/etc/passwd"}) {
    EXPECT_EQ(read_error(path), ErrorCode::kPermissionDenied) << path;
    EXPECT_EQ(write_error(path), ErrorCode::kPermissionDenied) << path;
  }
  EXPECT_EQ(write_error("up/new/a.png"), ErrorCode::kPermissionDenied);
  EXPECT_EQ(content(outside_ / "secret.png"), "secret");
}

TEST_P(Volume, TakesNothingButPlainFiles) {
  mkfifo((root_ / "pipe").c_str(), 0600);
  fs::create_directory(root_ / "folder.png");
  EXPECT_EQ(read_error("pipe"), ErrorCode::kPermissionDenied);
  EXPECT_EQ(read_error("folder.png"), ErrorCode::kPermissionDenied);
  EXPECT_EQ(read_error("in/me.png/x"), ErrorCode::kPermissionDenied);
  EXPECT_EQ(write_error("pipe"), ErrorCode::kPermissionDenied);
  EXPECT_EQ(write_error("folder.png"), ErrorCode::kPermissionDenied);
  if (mknod((root_ / "device").c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0) {
    EXPECT_EQ(read_error("device"), ErrorCode::kPermissionDenied);
    EXPECT_EQ(write_error("device"), ErrorCode::kPermissionDenied);
  }
}

TEST_P(Volume, ReplacesNoFileWithSeveralNames) {
  fs::create_hard_link(outside_ / "secret.png", root_ / "twin.png");
  EXPECT_EQ(write_error("twin.png"), ErrorCode::kPermissionDenied);
  EXPECT_EQ(content(outside_ / "secret.png"), "secret");
}

TEST_P(Volume, ReadsNoMoreThanAllowed) {
  put(root_ / "large.png", std::string(101, 'x'));
  EXPECT_EQ(read_error("large.png"), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(volume_->read("large.png", 101).ok());
}

TEST_P(Volume, LeavesNothingHalfWritten) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const struct rlimit small{64, 64};
    setrlimit(RLIMIT_FSIZE, &small);
    const auto done = volume_->write("in/me.png", std::vector<std::uint8_t>(1000));
    _exit(done.ok() ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(content(root_ / "in/me.png"), "me");
  EXPECT_EQ(std::distance(fs::directory_iterator(root_ / "in"), {}), 1);
}

// A mount below the volume, of the same disk: its device number tells nothing.
TEST_P(Volume, CrossesNoMount) {
  constexpr int kNoMounts = 77;
  fs::create_directories(root_ / "mounted");
  put(root_ / "file.png", "x");
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount(outside_.c_str(), (root_ / "mounted").c_str(), nullptr, MS_BIND, nullptr) != 0 ||
        mount((outside_ / "secret.png").c_str(), (root_ / "file.png").c_str(), nullptr, MS_BIND,
              nullptr) != 0) {
      _exit(kNoMounts);
    }
    const auto volume = VolumeFolder::open(root_, GetParam()).value();  // as the mounts are now
    const auto file = volume.read("mounted/secret.png", 100);
    const auto bound = volume.read("file.png", 100);
    const auto written = volume.write("mounted/new.png", bytes("x"));
    const auto denied = [](const auto& result) {
      return !result.ok() && result.error().code == ErrorCode::kPermissionDenied;
    };
    _exit((denied(file) ? 0 : 1) + (denied(bound) ? 0 : 2) + (denied(written) ? 0 : 4));
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNoMounts) {
    GTEST_SKIP() << "mounting is not allowed here";
  }
  EXPECT_EQ(status, 0);
}

// A folder and a link change places, over and over, while it is read and written.
TEST_P(Volume, IsNotLeftByARace) {
  fs::create_directories(root_ / "here");
  put(root_ / "here/me.png", "me");
  fs::create_directories(outside_ / "elsewhere");
  put(outside_ / "elsewhere/me.png", "secret");
  fs::create_directory_symlink(outside_ / "elsewhere", root_ / "link");
  const std::string here = root_ / "here", link = root_ / "link";
  const auto swap = [&] {
    return renameat2(AT_FDCWD, here.c_str(), AT_FDCWD, link.c_str(), RENAME_EXCHANGE) == 0;
  };
  if (!swap() || !swap()) GTEST_SKIP() << "this disk cannot let two names change places";
  std::atomic<bool> over = false;
  std::jthread swaps([&] {
    while (!over) swap();
  });
  int reads = 0, writes = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::string got = read("here/me.png");
    EXPECT_NE(got, "secret");
    reads += got == "me" ? 1 : 0;
    writes += volume_->write("here/me.png", bytes("me")).ok() ? 1 : 0;
  }
  over = true;
  swaps.join();
  EXPECT_EQ(content(outside_ / "elsewhere/me.png"), "secret");
  EXPECT_EQ(std::distance(fs::directory_iterator(outside_ / "elsewhere"), {}), 1);
  EXPECT_GT(reads, 0);
  EXPECT_GT(writes, 0);
}

INSTANTIATE_TEST_SUITE_P(BothWays, Volume, ::testing::Values(Lookup::kKernel, Lookup::kPartByPart));

TEST(VolumeFolder, MustBeThere) {
  EXPECT_EQ(VolumeFolder::open("/nowhere/at/all").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace limner::runpod
