#include "base/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace limner {
namespace {

namespace fs = std::filesystem;

bool write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t done = write(descriptor, text.data(), text.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(done));
  }
  return true;
}

}  // namespace

void write_atomically(const fs::path& path, std::string_view text) {
  const fs::path fresh = path.string() + ".new";
  const int descriptor = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  bool good = descriptor >= 0 && write_all(descriptor, text) && fsync(descriptor) == 0;
  int number = errno;
  if (descriptor >= 0 && close(descriptor) != 0 && good) {
    good = false;
    number = errno;
  }
  if (good && std::rename(fresh.c_str(), path.c_str()) != 0) {
    good = false;
    number = errno;
  }
  if (!good) {
    unlink(fresh.c_str());
    throw Failure(ErrorCode::kIo,
                  fmt::format("cannot write {}: {}", path.string(), std::strerror(number)));
  }
  sync_folder(path.parent_path());
}

void sync_folder(const fs::path& folder) {
  const char* name = folder.empty() ? "." : folder.c_str();
  const int descriptor = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  fsync(descriptor);
  close(descriptor);
}

}  // namespace limner
