#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "image/encode.h"

namespace limner::image {
namespace {

namespace fs = std::filesystem;

// Only while errno still tells of the failed call.
[[noreturn]] void fail(const fs::path& path, const char* step) {
  const int number = errno;
  const ErrorCode code =
      number == ENOENT || number == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo;
  throw Failure(code, fmt::format("[image.write] cannot write {}: {}: {}", path.string(), step,
                                  std::strerror(number)));
}

class File {
 public:
  File(const fs::path& path, int flags)
      : descriptor_(open(path.c_str(), flags | O_WRONLY | O_CLOEXEC, 0666)) {}
  ~File() {
    if (is_open()) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool is_open() const { return descriptor_ >= 0; }

  void write(const fs::path& name, std::span<const std::uint8_t> bytes) const {
    while (!bytes.empty()) {
      const ssize_t done = ::write(descriptor_, bytes.data(), bytes.size());
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail(name, "writing");
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
  }

  void flush(const fs::path& name) const {
    if (fsync(descriptor_) != 0) fail(name, "flushing to the disk");
  }

  // Some file systems report a full disk only here.
  void close(const fs::path& name) {
    const int descriptor = descriptor_;
    descriptor_ = -1;
    if (::close(descriptor) != 0) fail(name, "closing");
  }

 private:
  int descriptor_;
};

// A name that no other writer uses: ours by process and count, another's by O_EXCL.
fs::path temporary_name(const fs::path& folder) {
  static std::atomic<unsigned> count = 0;
  return folder / fmt::format(".limner-{}-{}.tmp", getpid(), count++);
}

void write_beside(const fs::path& path, std::span<const std::uint8_t> bytes) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const fs::path temporary = temporary_name(folder);
  File file(temporary, O_CREAT | O_EXCL);
  if (!file.is_open()) fail(path, "making a file in its folder");
  try {
    file.write(path, bytes);
    file.flush(path);
    file.close(path);
    if (std::rename(temporary.c_str(), path.c_str()) != 0) fail(path, "renaming");
  } catch (const Failure&) {
    unlink(temporary.c_str());
    throw;
  }
  // The new name, too, should outlive a power cut; the bytes are safe either way.
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor >= 0) {
    fsync(descriptor);
    close(descriptor);
  }
}

}  // namespace

Result<void> write_file(const fs::path& path, std::span<const std::uint8_t> bytes) {
  try {
    std::error_code status;
    const fs::file_status kind = fs::status(path, status);
    if (fs::is_directory(kind)) {
      throw Failure(ErrorCode::kIo,
                    fmt::format("[image.write] cannot write {}: it is a folder", path.string()));
    }
    if (fs::exists(kind) && !fs::is_regular_file(kind)) {
      // A pipe or a device is written to, never replaced.
      File device(path, 0);
      if (!device.is_open()) fail(path, "opening");
      device.write(path, bytes);
      device.close(path);
      return {};
    }
    // A link stays a link: what it points to is replaced.
    const fs::path target = fs::exists(kind) ? fs::canonical(path, status) : path;
    write_beside(status ? path : target, bytes);
    return {};
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::image
