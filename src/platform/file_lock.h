// FileLock: a lock that threads and processes of this machine share, held through an open file.
#pragma once

#include <filesystem>
#include <optional>

#include "base/error.h"

namespace limner::platform {

// Holds the file open and locked (flock) for as long as it lives; a process that dies lets go of
// it. The file may be renamed or removed while it is locked: whoever waits then locks the new one.
class FileLock {
 public:
  // Opens `path` for reading and writing, making it where there is none; nothing when somebody else
  // holds it. Throws Failure(kNotFound) when its folder does not exist, kIo.
  static std::optional<FileLock> try_lock(const std::filesystem::path& path);
  // Waits for it (only for locks that are held for a moment).
  static FileLock lock(const std::filesystem::path& path);

  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

  int descriptor() const { return descriptor_; }

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

}  // namespace limner::platform
