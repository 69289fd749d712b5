// FileSystem: the calls by which LocalStore writes, handed in so that a test can let any of them
// fail.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>

namespace limner::delivery {

// Each call throws std::system_error with the errno of the one step that failed. Safe to call from
// many threads.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // A new file, which must not exist; its descriptor is the caller's to close.
  virtual int create(const std::filesystem::path& path) = 0;
  virtual void write(int descriptor, std::span<const std::uint8_t> bytes) = 0;
  virtual void set_time(int descriptor, std::chrono::system_clock::time_point time) = 0;
  virtual void sync(int descriptor) = 0;
  virtual void close(int descriptor) = 0;
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  virtual void remove(const std::filesystem::path& path) = 0;
  // With its parents; the names of new ones are flushed to the disk.
  virtual void make_folders(const std::filesystem::path& path) = 0;
  virtual void sync_folder(const std::filesystem::path& path) = 0;
};

class PosixFileSystem final : public FileSystem {
 public:
  int create(const std::filesystem::path& path) override;
  void write(int descriptor, std::span<const std::uint8_t> bytes) override;
  void set_time(int descriptor, std::chrono::system_clock::time_point time) override;
  void sync(int descriptor) override;
  void close(int descriptor) override;
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  void remove(const std::filesystem::path& path) override;
  void make_folders(const std::filesystem::path& path) override;
  void sync_folder(const std::filesystem::path& path) override;
};

}  // namespace limner::delivery
