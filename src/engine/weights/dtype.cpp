#include "engine/weights/dtype.h"

#include <array>

namespace limner::engine::weights {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  std::size_t bits;
};

// Names and widths as in the safetensors reference.
constexpr std::array kRows = {
    Row{DType::kBool, "BOOL", 8},
    Row{DType::kU8, "U8", 8},
    Row{DType::kI8, "I8", 8},
    Row{DType::kI16, "I16", 16},
    Row{DType::kU16, "U16", 16},
    Row{DType::kI32, "I32", 32},
    Row{DType::kU32, "U32", 32},
    Row{DType::kI64, "I64", 64},
    Row{DType::kU64, "U64", 64},
    Row{DType::kF4, "F4", 4},
    Row{DType::kF6E2M3, "F6_E2M3", 6},
    Row{DType::kF6E3M2, "F6_E3M2", 6},
    Row{DType::kF8E5M2, "F8_E5M2", 8},
    Row{DType::kF8E4M3, "F8_E4M3", 8},
    Row{DType::kF8E8M0, "F8_E8M0", 8},
    Row{DType::kF8E5M2FNUZ, "F8_E5M2FNUZ", 8},
    Row{DType::kF8E4M3FNUZ, "F8_E4M3FNUZ", 8},
    Row{DType::kF16, "F16", 16},
    Row{DType::kBF16, "BF16", 16},
    Row{DType::kF32, "F32", 32},
    Row{DType::kF64, "F64", 64},
    Row{DType::kC64, "C64", 64},
};

constexpr bool rows_are_in_order() {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<std::size_t>(kRows[i].dtype) != i) return false;
  }
  return true;
}
static_assert(rows_are_in_order(), "kRows is indexed by DType");

}  // namespace

std::string_view name(DType dtype) {
  return kRows[static_cast<std::size_t>(dtype)].name;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

std::size_t bits(DType dtype) {
  return kRows[static_cast<std::size_t>(dtype)].bits;
}

}  // namespace limner::engine::weights
