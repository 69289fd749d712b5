#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "engine/weights/message_text.h"
#include "engine/weights/safetensors.h"
#include "engine/weights/safetensors_header.h"

namespace limner::engine::weights {
namespace {

// The reference's order of dtypes; it lays out the last of them first, so that wide elements are
// aligned.
std::size_t layout_rank(DType dtype) {
  constexpr std::array kOrder = {
      DType::kBool,   DType::kF4,     DType::kF6E2M3, DType::kF6E3M2,     DType::kU8,
      DType::kI8,     DType::kF8E5M2, DType::kF8E4M3, DType::kF8E5M2FNUZ, DType::kF8E4M3FNUZ,
      DType::kF8E8M0, DType::kI16,    DType::kU16,    DType::kF16,        DType::kBF16,
      DType::kI32,    DType::kU32,    DType::kF32,    DType::kC64,        DType::kF64,
      DType::kI64,    DType::kU64};
  return static_cast<std::size_t>(std::find(kOrder.begin(), kOrder.end(), dtype) - kOrder.begin());
}

std::string json_text(std::string_view text, const std::string& where) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("{}: {} is not valid UTF-8", where, quote(text)));
  }
}

// Throws for a shape that has no whole number of bytes, or more than there can be.
std::uint64_t bytes_of(const TensorPlan& tensor, const std::string& where) {
  std::uint64_t elements = 1;
  bool fits = true;
  for (const std::int64_t side : tensor.shape) {
    fits = fits && side >= 0 &&
           !__builtin_mul_overflow(elements, static_cast<std::uint64_t>(side), &elements);
  }
  fits = fits && elements < (std::uint64_t{1} << 56) && elements * bits(tensor.dtype) % 8 == 0;
  if (!fits) {
    throw Failure(
        ErrorCode::kInvalidArgument,
        fmt::format("{}: tensor {} has a shape that cannot be", where, quote(tensor.name)));
  }
  return elements * bits(tensor.dtype) / 8;
}

std::string make_header(const std::vector<TensorPlan>& tensors,
                        const std::map<std::string, std::string>& metadata,
                        const std::string& where) {
  std::string header = "{";
  const auto separate = [&] {
    if (header.size() > 1) header += ',';
  };
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (header.back() != '{') header += ',';
      header += json_text(key, where) + ":" + json_text(value, where);
    }
    header += '}';
  }
  std::uint64_t offset = 0;
  for (const TensorPlan& tensor : tensors) {
    separate();
    const std::uint64_t end = offset + bytes_of(tensor, where);
    header += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          json_text(tensor.name, where), name(tensor.dtype),
                          fmt::join(tensor.shape, ","), offset, end);
    offset = end;
  }
  header += '}';
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

void write_all(int descriptor, std::span<const std::byte> bytes, const std::string& where) {
  while (!bytes.empty()) {
    // One call takes at most 2 GiB on Linux; smaller pieces also let a signal through.
    const ssize_t written =
        ::write(descriptor, bytes.data(), std::min<std::size_t>(bytes.size(), 64u << 20));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      throw Failure(ErrorCode::kIo,
                    fmt::format("{}: cannot be written ({})", where, std::strerror(errno)));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

// A file beside the target that is removed again unless it was renamed into place.
class TemporaryFile {
 public:
  TemporaryFile(const std::filesystem::path& target, std::string where) : where_(std::move(where)) {
    static std::atomic<unsigned> counter = 0;
    path_ = target;
    path_ += fmt::format(".partial-{}-{}", ::getpid(), counter++);
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (descriptor_ < 0) fail("cannot be created");
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!path_.empty()) ::unlink(path_.c_str());
  }

  int descriptor() const { return descriptor_; }

  void become(const std::filesystem::path& target) {
    if (::fsync(descriptor_) != 0) fail("cannot be written");
    if (::close(std::exchange(descriptor_, -1)) != 0) fail("cannot be written");
    if (::rename(path_.c_str(), target.c_str()) != 0) fail("cannot be put in place");
    path_.clear();
    // The new name is only safe once its folder is on disk too; a file system without that has
    // nothing to add.
    const std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";
    const int folder_descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_descriptor >= 0) {
      ::fsync(folder_descriptor);
      ::close(folder_descriptor);
    }
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    const int code = errno;
    throw Failure(ErrorCode::kIo, fmt::format("{}: {} ({})", where_, what, std::strerror(code)));
  }

  std::string where_;
  std::filesystem::path path_;
  int descriptor_ = -1;
};

WrittenFile write(const std::filesystem::path& path, std::vector<TensorPlan> tensors,
                  const MakeTensor& make, const std::map<std::string, std::string>& metadata) {
  const std::string where = short_name(path);
  std::sort(tensors.begin(), tensors.end(), [](const TensorPlan& a, const TensorPlan& b) {
    const std::size_t rank_a = layout_rank(a.dtype), rank_b = layout_rank(b.dtype);
    return rank_a != rank_b ? rank_a > rank_b : a.name < b.name;
  });
  const std::string header = make_header(tensors, metadata, where);
  std::uint64_t size = 0;
  for (const TensorPlan& tensor : tensors) size += bytes_of(tensor, where);
  try {
    // The reader's own rules are the best check of what goes out.
    check_header_length(header.size(), 8 + header.size() + size, where);
    parse_header(header, size, where);
  } catch (const Failure& failure) {
    throw Failure(ErrorCode::kInvalidArgument, failure.what());
  }
  std::array<std::byte, 8> length = {};
  for (std::size_t i = 0; i < 8; ++i) {
    length[i] = static_cast<std::byte>(static_cast<std::uint64_t>(header.size()) >> (8 * i));
  }
  TemporaryFile file(path, where);
  Sha256 hash;
  const auto put = [&](std::span<const std::byte> bytes) {
    write_all(file.descriptor(), bytes, where);
    hash.update(bytes);
  };
  put(length);
  put(std::as_bytes(std::span(header)));
  for (const TensorPlan& tensor : tensors) {
    const std::span<const std::byte> bytes = make(tensor);
    if (bytes.size() != bytes_of(tensor, where)) {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("{}: tensor {} of shape [{}] has {} bytes", where,
                                quote(tensor.name), fmt::join(tensor.shape, ", "), bytes.size()));
    }
    put(bytes);
  }
  file.become(path);
  return {8 + header.size() + size, to_hex(hash.finish())};
}

}  // namespace

Result<WrittenFile> stream_safetensors(const std::filesystem::path& path,
                                       std::vector<TensorPlan> tensors, const MakeTensor& make,
                                       const std::map<std::string, std::string>& metadata) {
  try {
    return write(path, std::move(tensors), make, metadata);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<void> write_safetensors(const std::filesystem::path& path,
                               std::vector<TensorToWrite> tensors,
                               const std::map<std::string, std::string>& metadata) {
  std::vector<TensorPlan> plans;
  std::map<std::string, std::span<const std::byte>> bytes;
  for (const TensorToWrite& tensor : tensors) {
    plans.push_back({tensor.name, tensor.dtype, tensor.shape});
    bytes[tensor.name] = tensor.bytes;
  }
  const auto written = stream_safetensors(
      path, std::move(plans), [&](const TensorPlan& plan) { return bytes.at(plan.name); },
      metadata);
  return written.ok() ? Result<void>() : Result<void>(written.error());
}

}  // namespace limner::engine::weights
