// VolumeFolder: the files of a network volume that requests name: nothing outside it is reached,
// whatever stands in a path or is done to the folders meanwhile.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::runpod {

// A path as a request may have it: relative, parts of 1..255 bytes, 1024 in all, none of them "."
// or "..", no control character. Errors: kInvalidArgument with what is wanted.
Result<void> check_volume_path(std::string_view path);

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : number_(other.number_) { other.number_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  int number() const { return number_; }
  bool is_open() const { return number_ >= 0; }
  int release();  // the caller's to close

 private:
  int number_;
};

// Any thread may call. Every part of a path is looked up below a folder that is held open; symbolic
// links, magic links and mount points on the way are refused (openat2, and where a sandbox forbids
// that, part by part with O_NOFOLLOW). Errors of all calls: kInvalidArgument (a path as above),
// kNotFound, kPermissionDenied (a link, a mount, or no plain file), kUnavailable with `retryable`
// (no room), kIo.
class VolumeFolder {
 public:
  enum class Lookup { kKernel, kPartByPart };  // the second is for tests and as a fallback

  // Errors: kNotFound where there is no such folder.
  static Result<VolumeFolder> open(const std::filesystem::path& folder,
                                   Lookup lookup = Lookup::kKernel);

  // A plain file of `most_bytes` at most (else kInvalidArgument).
  Result<std::vector<std::uint8_t>> read(std::string_view path, std::uint64_t most_bytes) const;
  // Whether write() may replace or make it, as far as can be told now.
  Result<void> check_target(std::string_view path) const;
  // Whole or not at all: a file beside it, flushed and renamed. Missing folders are made. What is
  // there is replaced where it is a plain file with one name alone.
  Result<void> write(std::string_view path, std::span<const std::uint8_t> bytes) const;

  const std::filesystem::path& path() const { return path_; }

 private:
  VolumeFolder(std::filesystem::path path, Descriptor root, Lookup lookup)
      : path_(std::move(path)), root_(std::move(root)), lookup_(lookup) {}
  // All below throw Failure or, for the descriptor, leave errno.
  Descriptor open_below(const std::string& path, int flags) const;
  Descriptor open_part_by_part(const std::string& path, int flags) const;
  Descriptor folder_of(const std::string& path, bool make) const;

  std::filesystem::path path_;
  Descriptor root_;
  Lookup lookup_;
};

}  // namespace limner::runpod
