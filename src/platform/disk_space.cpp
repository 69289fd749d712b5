#include "platform/disk_space.h"

#include <fmt/format.h>
#include <sys/statvfs.h>

namespace limner::platform {

void require_space(const std::filesystem::path& folder, std::uint64_t bytes) {
  struct statvfs disk{};
  if (statvfs(folder.empty() ? "." : folder.c_str(), &disk) != 0) return;
  const std::uint64_t free = std::uint64_t{disk.f_bavail} * disk.f_frsize;
  if (bytes > free) {
    throw Failure(ErrorCode::kIo, fmt::format("{} needs {} bytes more, and the disk has {} free",
                                              folder.string(), bytes, free));
  }
}

}  // namespace limner::platform
