#include "runpod/kept_text.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace limner::runpod {
namespace {

Error failed(const char* what, const std::filesystem::path& folder) {
  return {ErrorCode::kIo, fmt::format("[runpod] a result cannot be {} a file in {}: {}", what,
                                      folder.string(), std::strerror(errno))};
}

// False: errno says why.
bool write_all(int file, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t wrote = write(file, text.data() + at, text.size() - at);
    if (wrote < 0 && errno != EINTR) return false;
    if (wrote > 0) at += static_cast<std::size_t>(wrote);
  }
  return true;
}

}  // namespace

KeptText::KeptText(std::string text) : text_(std::move(text)), size_(text_.size()) {}

KeptText::KeptText(KeptText&& other) noexcept
    : text_(std::move(other.text_)), file_(std::exchange(other.file_, -1)), size_(other.size_) {}

KeptText& KeptText::operator=(KeptText&& other) noexcept {
  std::swap(text_, other.text_);
  std::swap(file_, other.file_);
  std::swap(size_, other.size_);
  return *this;
}

KeptText::~KeptText() {
  if (file_ >= 0) close(file_);
}

Result<KeptText> KeptText::on_disk(const std::string& text, const std::filesystem::path& folder) {
  std::string name = (folder / "undelivered-XXXXXX").string();
  const int file = mkostemp(name.data(), O_CLOEXEC);
  if (file < 0) return failed("put into", folder);
  unlink(name.c_str());
  KeptText kept(file, text.size());
  if (!write_all(file, text)) return failed("written to", folder);
  return kept;
}

Result<std::string> KeptText::read() const {
  if (file_ < 0) return text_;
  std::string text(size_, '\0');
  for (std::size_t at = 0; at < size_;) {
    const ssize_t got = pread(file_, text.data() + at, size_ - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return Error{ErrorCode::kIo,
                   fmt::format("[runpod] a result cannot be read again: {}",
                               got == 0 ? "its file is cut" : strerror(errno)),
                   true};
    }
    at += static_cast<std::size_t>(got);
  }
  return text;
}

}  // namespace limner::runpod
