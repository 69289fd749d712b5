// Bytes of a file into memory of our own: by several threads, and looked through for NaN and
// infinity while they are still in the cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "engine/weights/dtype.h"

namespace limner::engine::weights {

// Reads exactly out.size() bytes. Throws Failure(kIo), or kInvalidModel beginning with `where` when
// the file ends before: pread tells of a file that shrank, where a map would raise SIGBUS.
void read_at(int descriptor, std::span<std::byte> out, std::uint64_t offset,
             const std::string& where);

// Zeros until written; on large pages where the system has them. Throws Failure(kOutOfMemory).
class LoadMemory {
 public:
  explicit LoadMemory(std::size_t size);
  LoadMemory(const LoadMemory&) = delete;
  LoadMemory& operator=(const LoadMemory&) = delete;
  ~LoadMemory();
  std::span<std::byte> bytes() const { return bytes_; }
  void make_read_only();

 private:
  void* map_ = nullptr;
  std::size_t mapped_ = 0;
  std::span<std::byte> bytes_;  // aligned for any element
};

// One tensor's bytes, whole elements of `dtype`.
struct LoadRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  DType dtype = DType::kF32;
};

// Fills `out` with what follows `offset` in the file. `ranges` are places in `out`, ascending and
// without overlaps. The first range that holds a NaN or an infinity, if one does. Throws as
// read_at.
std::optional<std::size_t> load_bytes(int descriptor, std::uint64_t offset,
                                      std::span<std::byte> out, std::span<const LoadRange> ranges,
                                      const std::string& where);

}  // namespace limner::engine::weights
