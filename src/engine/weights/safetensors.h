// A safetensors file over a read-only memory map. Format and rules: safetensors reference (u64
// little-endian header length, JSON header, tensors without holes); the rules are all checked
// before any byte is handed out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
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
// Offsets need not be multiples of the element size, so bytes.data() may be unaligned. A file that
// is cut off by somebody else while it is mapped kills whoever touches the lost pages (SIGBUS):
// call prefetch right before reading, which notices.
class SafetensorsFile {
 public:
  // Where the views point: into a map of the file, or into memory of the object's own, which holds
  // zeros until load().
  enum class Backing { kMap, kMemory };
  // Fails with kNotFound, kIo, kUnsupported (a pickle or another format, told by content) or
  // kInvalidModel (a sentence naming file, tensor and rule).
  static Result<SafetensorsFile> open(const std::filesystem::path& path,
                                      Backing backing = Backing::kMap);

  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const std::map<std::string, TensorView, std::less<>>& tensors() const;
  const std::map<std::string, std::string, std::less<>>& metadata() const;
  const std::filesystem::path& path() const;
  std::uint64_t file_size() const;

  // Of a file opened with kMemory: reads all tensors at once; what happens to the file afterwards
  // changes nothing. Fails with kIo, and with kInvalidModel when the file was cut off or a tensor
  // holds a NaN or an infinity.
  Result<void> load();
  // Keeps what the views of a loaded file point into.
  std::shared_ptr<const void> memory() const;

  // Of a mapped file: brings the tensor's pages in with one system call. Fails with kInvalidModel
  // when the file's size or time of change is not what it was at open, kIo when its pages cannot be
  // read.
  Result<void> prefetch(const TensorView& tensor) const;
  // Whether the view points into this file.
  bool owns(const TensorView& tensor) const;
  // Tells the system that these pages will not be read again soon (after they were copied
  // elsewhere).
  void release(const TensorView& tensor) const;

 private:
  struct State;
  explicit SafetensorsFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Writes tensors to `path` (temporary file, fsync, rename), wide dtypes first and names sorted
// within each, header padded to 8 bytes: the same bytes as the reference library writes. Fails with
// kInvalidArgument (a name twice or not UTF-8, a shape that does not fill its bytes) or kIo; then
// `path` is as it was.
struct TensorToWrite {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};
Result<void> write_safetensors(const std::filesystem::path& path,
                               std::vector<TensorToWrite> tensors,
                               const std::map<std::string, std::string>& metadata = {});

// The same for tensors that are made one by one while the file is written, so that no more than one
// need be in memory. `make` is called once per tensor, in the order of the file; its bytes must
// last until the next call and fill the shape. What it throws as a Failure is the Result.
struct TensorPlan {
  std::string name;
  DType dtype;
  std::vector<std::int64_t> shape;
};
struct WrittenFile {
  std::uint64_t bytes = 0;
  std::string sha256;
};
using MakeTensor = std::function<std::span<const std::byte>(const TensorPlan&)>;
struct StreamOptions {
  std::map<std::string, std::string> metadata{};
  // Not empty: what an interruption leaves is kept beside the file, and the next call with this key
  // goes on from there. It stands for all that decides the tensors' bytes.
  std::string resume_key{};
  // Told of a tensor that was kept; `make` is not called for it.
  std::function<void(const TensorPlan&)> kept{};
};
Result<WrittenFile> stream_safetensors(const std::filesystem::path& path,
                                       std::vector<TensorPlan> tensors, const MakeTensor& make,
                                       const StreamOptions& options = {});

}  // namespace limner::engine::weights
