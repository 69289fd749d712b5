// Element types of stored tensors, as safetensors names them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace limner::engine::weights {

enum class DType : std::uint8_t {
  kBool,
  kU8,
  kI8,
  kI16,
  kU16,
  kI32,
  kU32,
  kI64,
  kU64,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E5M2FNUZ,
  kF8E4M3FNUZ,
  kF16,
  kBF16,
  kF32,
  kF64,
  kC64,
};

std::string_view name(DType dtype);  // "F16"
std::optional<DType> dtype_from_name(std::string_view name);
std::size_t bits(DType dtype);  // 4, 6, 8, 16, 32 or 64

}  // namespace limner::engine::weights
