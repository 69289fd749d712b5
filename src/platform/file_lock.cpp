#include "platform/file_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace limner::platform {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, const char* step) {
  const int number = errno;
  throw Failure(number == ENOENT || number == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo,
                fmt::format("cannot {} {}: {}", step, path.string(), std::strerror(number)));
}

int open_file(const fs::path& path) {
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) fail(path, "open");
  return descriptor;
}

// Whether `path` still names the file behind the descriptor.
bool still_named(int descriptor, const fs::path& path) {
  struct stat ours{}, named{};
  return fstat(descriptor, &ours) == 0 && stat(path.c_str(), &named) == 0 &&
         ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

}  // namespace

std::optional<FileLock> FileLock::try_lock(const fs::path& path) {
  while (true) {
    FileLock file(open_file(path));
    if (flock(file.descriptor_, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      if (errno == EWOULDBLOCK) return std::nullopt;
      fail(path, "lock");
    }
    if (still_named(file.descriptor_, path)) return file;
  }
}

FileLock FileLock::lock(const fs::path& path) {
  while (true) {
    FileLock file(open_file(path));
    while (flock(file.descriptor_, LOCK_EX) != 0) {
      if (errno != EINTR) fail(path, "lock");
    }
    if (still_named(file.descriptor_, path)) return file;
  }
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

FileLock::~FileLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

}  // namespace limner::platform
