#include "runpod/volume_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/quote.h"

namespace limner::runpod {
namespace {

constexpr std::size_t kLongestPath = 1024, kLongestPart = 255;
constexpr int kTriesOfARace = 16;

std::string leaf_of(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

// Only while errno still tells of the failed call.
[[noreturn]] void fail(std::string_view path, std::string_view step) {
  const int number = errno;
  const auto told = [&](ErrorCode code, std::string_view why, bool retryable = false) {
    return Failure(
        Error{code, fmt::format("[volume] {}: {}: {}", quote(path), step, why), retryable});
  };
  switch (number) {
    case ENOENT:
      throw told(ErrorCode::kNotFound, "it is not there");
    case ELOOP:
    case EXDEV:
    case ENOTDIR:
    case EISDIR:
    case ENXIO:
      throw told(ErrorCode::kPermissionDenied,
                 "links, mounts and what is no plain file in a plain folder are not followed");
    case EACCES:
    case EPERM:
    case EROFS:
      throw told(ErrorCode::kPermissionDenied, std::strerror(number));
    case ENOSPC:
    case EDQUOT:
      throw told(ErrorCode::kUnavailable, std::strerror(number), true);
    default:
      throw told(ErrorCode::kIo, std::strerror(number));
  }
}

[[noreturn]] void refuse(std::string_view path, std::string_view why) {
  throw Failure(ErrorCode::kPermissionDenied, fmt::format("[volume] {} {}", quote(path), why));
}

// Of what a mount shows; 0 where the kernel does not say.
std::uint64_t mount_of(int descriptor) {
  struct statx status{};
  if (statx(descriptor, "", AT_EMPTY_PATH, STATX_MNT_ID, &status) != 0) return 0;
  return (status.stx_mask & STATX_MNT_ID) != 0 ? status.stx_mnt_id : 0;
}

bool on_one_mount(int first, int second) {
  struct stat one{}, other{};
  if (fstat(first, &one) != 0 || fstat(second, &other) != 0) return false;
  return one.st_dev == other.st_dev && mount_of(first) == mount_of(second);
}

// Nothing: there is none of that name.
std::optional<struct stat> look_at(int folder, const std::string& path) {
  struct stat status{};
  if (fstatat(folder, leaf_of(path).c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) return status;
  if (errno != ENOENT) fail(path, "looking at it");
  return std::nullopt;
}

void require_replaceable(int folder, const std::string& path) {
  const auto there = look_at(folder, path);
  if (!there) return;
  if (!S_ISREG(there->st_mode)) refuse(path, "is there and no plain file; it is not replaced");
  // Another name of the file may be anywhere on the disk.
  if (there->st_nlink != 1) refuse(path, "is there under several names; it is not replaced");
}

void write_all(int file, std::string_view path, std::span<const std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(file, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(path, "writing");
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

void replace(int folder, const std::string& path, std::span<const std::uint8_t> bytes) {
  static std::atomic<unsigned> count = 0;
  const std::string name = fmt::format(".limner-{}-{}.part", getpid(), count++);
  Descriptor file(
      openat(folder, name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!file.is_open()) fail(path, "making a file in its folder");
  try {
    write_all(file.number(), path, bytes);
    if (fsync(file.number()) != 0) fail(path, "flushing to the disk");
    if (::close(file.release()) != 0) fail(path, "closing");
    if (renameat(folder, name.c_str(), folder, leaf_of(path).c_str()) != 0) fail(path, "renaming");
  } catch (const Failure&) {
    unlinkat(folder, name.c_str(), 0);
    throw;
  }
  // The name, too, should outlive a power cut; the bytes are safe either way.
  fsync(folder);
}

}  // namespace

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

int Descriptor::release() {
  return std::exchange(number_, -1);
}

Result<void> check_volume_path(std::string_view path) {
  const auto wrong = [&](std::string_view why) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("must be a path below the volume such as inputs/me.png; {} {}",
                             quote(path), why)};
  };
  if (path.empty()) return wrong("is empty");
  if (path.front() == '/') return wrong("is absolute");
  if (path.size() > kLongestPath) return wrong("is too long");
  if (std::ranges::any_of(path, [](unsigned char c) { return c < 0x20 || c == 0x7F; })) {
    return wrong("holds a control character");
  }
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return wrong("has a part that is no name");
    if (part.size() > kLongestPart) return wrong("has a name that is too long");
    begin = end + 1;
  }
  return {};
}

Result<VolumeFolder> VolumeFolder::open(const std::filesystem::path& folder, Lookup lookup) {
  Descriptor root(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root.is_open()) {
    return Error{ErrorCode::kNotFound, fmt::format("[volume] there is no folder {}: {}",
                                                   folder.string(), std::strerror(errno))};
  }
  return VolumeFolder(folder, std::move(root), lookup);
}

Descriptor VolumeFolder::open_below(const std::string& path, int flags) const {
  if (lookup_ == Lookup::kPartByPart) return open_part_by_part(path, flags);
  struct open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  // EAGAIN: something on the way was renamed meanwhile.
  for (int number = 0; number < kTriesOfARace; ++number) {
    const long opened = syscall(SYS_openat2, root_.number(), path.c_str(), &how, sizeof(how));
    if (opened >= 0) return Descriptor(static_cast<int>(opened));
    if (errno == ENOSYS || errno == EPERM) return open_part_by_part(path, flags);
    if (errno != EAGAIN && errno != EINTR) break;
  }
  return Descriptor();
}

Descriptor VolumeFolder::open_part_by_part(const std::string& path, int flags) const {
  Descriptor folder(dup(root_.number()));
  for (std::size_t begin = 0; folder.is_open() && begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const bool last = end == path.size();
    const std::string part = path.substr(begin, end - begin);
    Descriptor next(openat(folder.number(), part.c_str(),
                           (last ? flags : O_RDONLY | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC));
    if (next.is_open() && !on_one_mount(root_.number(), next.number())) {
      next = Descriptor();
      errno = EXDEV;
    }
    folder = std::move(next);
    begin = end + 1;
  }
  return folder;
}

// The folder of the path's last part. Not open: it is not there, and `make` is not set.
Descriptor VolumeFolder::folder_of(const std::string& path, bool make) const {
  Descriptor folder(dup(root_.number()));
  for (std::size_t end = path.find('/'); end != std::string::npos; end = path.find('/', end + 1)) {
    const std::string below = path.substr(0, end);
    Descriptor next = open_below(below, O_RDONLY | O_DIRECTORY);
    if (!next.is_open() && errno == ENOENT) {
      if (!make) return next;
      if (mkdirat(folder.number(), leaf_of(below).c_str(), 0777) != 0 && errno != EEXIST) {
        fail(path, "making its folder");
      }
      next = open_below(below, O_RDONLY | O_DIRECTORY);
    }
    if (!next.is_open()) fail(path, "opening its folder");
    folder = std::move(next);
  }
  return folder;
}

Result<std::vector<std::uint8_t>> VolumeFolder::read(std::string_view path,
                                                     std::uint64_t most_bytes) const {
  if (const auto fits = check_volume_path(path); !fits.ok()) return fits.error();
  try {
    // A pipe is opened without waiting for whoever writes it, and then refused.
    const Descriptor file =
        open_below(std::string(path), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    if (!file.is_open()) fail(path, "opening");
    struct stat status{};
    if (fstat(file.number(), &status) != 0) fail(path, "looking at it");
    if (!S_ISREG(status.st_mode)) refuse(path, "is no plain file");
    std::vector<std::uint8_t> bytes;
    std::uint8_t block[1 << 16];
    while (true) {
      const ssize_t got = ::read(file.number(), block, sizeof(block));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail(path, "reading");
      if (got == 0) return bytes;
      bytes.insert(bytes.end(), block, block + got);
      if (bytes.size() > most_bytes) {
        throw Failure(ErrorCode::kInvalidArgument,
                      fmt::format("[volume] {} has more than {} bytes", quote(path), most_bytes));
      }
    }
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<void> VolumeFolder::check_target(std::string_view path) const {
  if (const auto fits = check_volume_path(path); !fits.ok()) return fits.error();
  try {
    const Descriptor folder = folder_of(std::string(path), /*make=*/false);
    if (folder.is_open()) require_replaceable(folder.number(), std::string(path));
    return {};
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<void> VolumeFolder::write(std::string_view path, std::span<const std::uint8_t> bytes) const {
  if (const auto fits = check_volume_path(path); !fits.ok()) return fits.error();
  try {
    const Descriptor folder = folder_of(std::string(path), /*make=*/true);
    require_replaceable(folder.number(), std::string(path));
    replace(folder.number(), std::string(path), bytes);
    return {};
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::runpod
