#include "delivery/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

namespace limner::delivery {
namespace {

namespace fs = std::filesystem;

// Only while errno still tells of the failed call.
[[noreturn]] void fail(const char* step) {
  throw std::system_error(errno, std::generic_category(), step);
}

}  // namespace

int PosixFileSystem::create(const fs::path& path) {
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) fail("making a file");
  return descriptor;
}

void PosixFileSystem::write(int descriptor, std::span<const std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(descriptor, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail("writing");
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

void PosixFileSystem::set_time(int descriptor, std::chrono::system_clock::time_point time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const timespec stamp{
      .tv_sec = static_cast<time_t>(whole.time_since_epoch().count()),
      .tv_nsec = static_cast<long>(std::chrono::nanoseconds(time - whole).count())};
  const timespec both[2] = {stamp, stamp};
  if (futimens(descriptor, both) != 0) fail("setting the time");
}

void PosixFileSystem::sync(int descriptor) {
  if (fsync(descriptor) != 0) fail("flushing to the disk");
}

void PosixFileSystem::close(int descriptor) {
  if (::close(descriptor) != 0) fail("closing");
}

void PosixFileSystem::rename(const fs::path& from, const fs::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail("renaming");
}

void PosixFileSystem::remove(const fs::path& path) {
  if (unlink(path.c_str()) != 0) fail("removing");
}

void PosixFileSystem::make_folders(const fs::path& path) {
  std::error_code unknown;
  if (fs::is_directory(path, unknown)) return;
  const fs::path parent = path.parent_path();
  if (!parent.empty() && parent != path) make_folders(parent);
  if (mkdir(path.c_str(), 0777) != 0) {
    // Another writer may have been faster.
    if (errno == EEXIST && fs::is_directory(path, unknown)) return;
    errno = errno == EEXIST ? ENOTDIR : errno;
    fail("making a folder");
  }
  sync_folder(parent.empty() ? fs::path(".") : parent);
}

void PosixFileSystem::sync_folder(const fs::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail("opening a folder");
  const int done = fsync(descriptor);
  const int number = errno;
  ::close(descriptor);
  if (done != 0) {
    errno = number;
    fail("flushing a folder to the disk");
  }
}

}  // namespace limner::delivery
