// KeptText: a text that waits to be sent, in memory or on the disk.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include "base/error.h"

namespace limner::runpod {

// A value that moves; one thread at a time.
class KeptText {
 public:
  explicit KeptText(std::string text);
  // In a file of `folder` that has no name: it is gone with this object, and with the process
  // however that ends. Errors: kIo, and `text` is not kept.
  static Result<KeptText> on_disk(const std::string& text, const std::filesystem::path& folder);
  KeptText(KeptText&& other) noexcept;
  KeptText& operator=(KeptText&& other) noexcept;
  ~KeptText();

  std::size_t size() const { return size_; }
  std::size_t bytes_in_memory() const { return text_.size(); }
  Result<std::string> read() const;  // errors: kIo

 private:
  KeptText(int file, std::size_t size) : file_(file), size_(size) {}

  std::string text_{};
  int file_ = -1;  // its descriptor; -1: in memory
  std::size_t size_ = 0;
};

}  // namespace limner::runpod
