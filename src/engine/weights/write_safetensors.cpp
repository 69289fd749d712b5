#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "engine/weights/message_text.h"
#include "engine/weights/output_file.h"
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

WrittenFile write(const std::filesystem::path& path, std::vector<TensorPlan> tensors,
                  const MakeTensor& make, const StreamOptions& options) {
  const std::string where = short_name(path);
  std::sort(tensors.begin(), tensors.end(), [](const TensorPlan& a, const TensorPlan& b) {
    const std::size_t rank_a = layout_rank(a.dtype), rank_b = layout_rank(b.dtype);
    return rank_a != rank_b ? rank_a > rank_b : a.name < b.name;
  });
  const std::string header = make_header(tensors, options.metadata, where);
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
  const std::span header_bytes = std::as_bytes(std::span(header));
  const std::string& key = options.resume_key;
  OutputFile file(path, where, key.empty() ? "" : key + " " + sha256_hex(header_bytes));
  if (file.kept() == 0) {
    file.put(length);
    file.put(header_bytes);
  }
  std::uint64_t end = 8 + header.size();
  for (const TensorPlan& tensor : tensors) {
    end += bytes_of(tensor, where);
    if (end <= file.kept()) {
      if (options.kept) options.kept(tensor);
      continue;
    }
    const std::span<const std::byte> bytes = make(tensor);
    if (bytes.size() != bytes_of(tensor, where)) {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("{}: tensor {} of shape [{}] has {} bytes", where,
                                quote(tensor.name), fmt::join(tensor.shape, ", "), bytes.size()));
    }
    file.put(bytes);
    file.safe_point();
  }
  return {8 + header.size() + size, file.finish()};
}

}  // namespace

Result<WrittenFile> stream_safetensors(const std::filesystem::path& path,
                                       std::vector<TensorPlan> tensors, const MakeTensor& make,
                                       const StreamOptions& options) {
  try {
    return write(path, std::move(tensors), make, options);
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
      {.metadata = metadata, .resume_key = {}, .kept = {}});
  return written.ok() ? Result<void>() : Result<void>(written.error());
}

}  // namespace limner::engine::weights
