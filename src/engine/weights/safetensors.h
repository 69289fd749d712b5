// A safetensors file over a read-only memory map. Format and rules: safetensors reference (u64 little-endian header
// length, JSON header, tensors without holes); the rules are all checked before any byte is handed out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/weights/dtype.h"

namespace limner::engine::weights {

struct TensorView {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;  // into the map; lives as long as the file object
};

// Immutable and movable; views stay valid for the object's life. Safe to read from many threads.
class SafetensorsFile {
 public:
  // Fails with kNotFound, kIo, or kInvalidModel (a sentence naming file, tensor and rule).
  static Result<SafetensorsFile> open(const std::filesystem::path& path);

  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const std::map<std::string, TensorView, std::less<>>& tensors() const;
  const std::map<std::string, std::string, std::less<>>& metadata() const;
  const std::filesystem::path& path() const;
  std::uint64_t file_size() const;

  // Tells the system that these pages will not be read again soon (after they were copied elsewhere).
  void release(const TensorView& tensor) const;

 private:
  struct State;
  explicit SafetensorsFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Writes tensors to `path` (temporary file, fsync, rename), keys sorted, header padded to 8 bytes, as the reference
// library lays them out.
struct TensorToWrite {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};
Result<void> write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                               const std::map<std::string, std::string>& metadata = {});

}  // namespace limner::engine::weights
