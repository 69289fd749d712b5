// A large file that is written beside its place and put there when it is whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/error.h"
#include "base/sha256.h"

namespace limner::engine::weights {

// Used by one thread. Throws Failure.
class OutputFile {
 public:
  // Without a key the file is TARGET.partial-PID-N and goes away with this object unless it was put
  // in place. With one it is TARGET.partial and stays: a later one with the same key, which stands
  // for everything that is written, goes on from the last safe point, whose SHA-256 it checks.
  // Throws kUnavailable when another process writes it, kIo. `where` begins messages.
  OutputFile(std::filesystem::path target, std::string where, std::string key = "");
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Bytes at the beginning that an interrupted writer left; they are not to be put again.
  std::uint64_t kept() const { return kept_; }
  void put(std::span<const std::byte> bytes);
  // All that was put so far may be kept. It is made durable now and then only: it costs a flush.
  void safe_point();
  // Flushed and renamed to the target. The SHA-256 of the whole.
  std::string finish();

 private:
  void open();
  void lock();
  void keep_safe_part();
  [[noreturn]] void fail(const char* what) const;

  std::filesystem::path target_, path_;
  std::string where_, key_;
  int descriptor_ = -1;
  std::uint64_t kept_ = 0, written_ = 0, safe_ = 0;
  Sha256 hash_;
};

}  // namespace limner::engine::weights
