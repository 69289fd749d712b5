#include "engine/lora/module_reader.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cstdint>
#include <cstring>

#include "base/error.h"

namespace limner::engine::lora {
namespace {

at::ScalarType scalar_type(weights::DType dtype) {
  switch (dtype) {
    case weights::DType::kF16:
      return at::kHalf;
    case weights::DType::kBF16:
      return at::kBFloat16;
    case weights::DType::kF64:
      return at::kDouble;
    default:
      return at::kFloat;
  }
}

}  // namespace

at::Tensor tensor_of(const weights::TensorView& view, const std::shared_ptr<const void>& memory) {
  const at::ScalarType type = scalar_type(view.dtype);
  const auto address = reinterpret_cast<std::uintptr_t>(view.bytes.data());
  if (memory != nullptr && !view.bytes.empty() && address % c10::elementSize(type) == 0) {
    return at::from_blob(
        const_cast<std::byte*>(view.bytes.data()), view.shape, [memory](void*) {}, type);
  }
  at::Tensor copy = at::empty(view.shape, type);
  if (!view.bytes.empty()) {
    std::memcpy(copy.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  }
  return copy;
}

std::string shape_text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void mismatch(const Module& module, const std::string& part, const std::string& want,
              at::IntArrayRef got) {
  throw Failure(ErrorCode::kInvalidModel, fmt::format("{} does not fit the layer: want {}, got {}",
                                                      module.key_of(part), want, shape_text(got)));
}

at::Tensor ModuleReader::raw(const char* part) const {
  return tensor_of(module_.part(part), module_.memory);
}

at::Tensor ModuleReader::matrix(const char* part, int64_t rows, int64_t columns) const {
  const at::Tensor stored = raw(part);
  const at::Tensor flat = stored.dim() > 2 ? stored.flatten(1) : stored;
  const auto fits = [](int64_t size, int64_t want) { return want < 0 || size == want; };
  if (flat.dim() != 2 || !fits(flat.size(0), rows) || !fits(flat.size(1), columns)) {
    const auto size = [](int64_t want) { return want < 0 ? "any" : std::to_string(want); };
    mismatch(module_, part, fmt::format("[{}, {}]", size(rows), size(columns)), stored.sizes());
  }
  return flat;
}

at::Tensor ModuleReader::floats(const char* part, int64_t rows, int64_t columns) const {
  return matrix(part, rows, columns).to(at::kFloat);
}

at::Tensor ModuleReader::numbers(const char* part, int64_t count) const {
  const at::Tensor stored = raw(part);
  if (stored.numel() != count) {
    mismatch(module_, part, fmt::format("{} numbers", count), stored.sizes());
  }
  return stored.to(at::kFloat).reshape({count});
}

}  // namespace limner::engine::lora
