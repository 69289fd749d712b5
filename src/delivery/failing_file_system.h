// A FileSystem for tests: the real one, whose chosen call fails.
#pragma once

#include <cerrno>
#include <mutex>
#include <system_error>

#include "delivery/file_system.h"

namespace limner::delivery {

// Any thread may call.
class FailingFileSystem final : public FileSystem {
 public:
  // Call number `at` (from 0) fails with errno `number`; with `ever_after`, so do all later ones.
  void fail(int at, int number, bool ever_after = false) {
    const std::scoped_lock lock(mutex_);
    at_ = at;
    number_ = number;
    ever_after_ = ever_after;
    calls_ = 0;
    failed_ = false;
  }
  bool failed() const {
    const std::scoped_lock lock(mutex_);
    return failed_;
  }

  int create(const std::filesystem::path& path) override {
    step();
    return real_.create(path);
  }
  void write(int descriptor, std::span<const std::uint8_t> bytes) override {
    // A disk that fills up takes the first half.
    try {
      step();
    } catch (const std::system_error&) {
      real_.write(descriptor, bytes.first(bytes.size() / 2));
      throw;
    }
    real_.write(descriptor, bytes);
  }
  void set_time(int descriptor, std::chrono::system_clock::time_point time) override {
    step();
    real_.set_time(descriptor, time);
  }
  void sync(int descriptor) override {
    step();
    real_.sync(descriptor);
  }
  void close(int descriptor) override {
    real_.close(descriptor);  // a descriptor is gone even when closing it fails
    step();
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    step();
    real_.rename(from, to);
  }
  void remove(const std::filesystem::path& path) override {
    step();
    real_.remove(path);
  }
  void make_folders(const std::filesystem::path& path) override {
    step();
    real_.make_folders(path);
  }
  void sync_folder(const std::filesystem::path& path) override {
    step();
    real_.sync_folder(path);
  }

 private:
  void step() {
    const std::scoped_lock lock(mutex_);
    const int call = calls_++;
    if (at_ < 0 || call < at_ || (call > at_ && !ever_after_)) return;
    failed_ = true;
    throw std::system_error(number_, std::generic_category(), "chosen to fail");
  }

  PosixFileSystem real_;
  mutable std::mutex mutex_;
  int at_ = -1, number_ = 0, calls_ = 0;  // by mutex_, like the next two
  bool ever_after_ = false, failed_ = false;
};

}  // namespace limner::delivery
