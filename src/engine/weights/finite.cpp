#include "engine/weights/finite.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace limner::engine::weights {
namespace {

// A float is infinite or no number exactly when all bits of its exponent are set. Tested on
// integers, because the compiler makes vector code of that which is as fast as memory.
template <typename Bits, Bits kExponent>
bool check(std::span<const std::byte> bytes) {
  constexpr std::size_t kBlock = 4096;
  const std::size_t count = bytes.size() / sizeof(Bits);
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t end = std::min(count, begin + kBlock);
    Bits found = 0;
    for (std::size_t i = begin; i < end; ++i) {
      Bits value;
      std::memcpy(&value, bytes.data() + i * sizeof(Bits), sizeof(Bits));
      found |= static_cast<Bits>((value & kExponent) == kExponent);
    }
    if (found != 0) return false;
  }
  return true;
}

}  // namespace

bool all_finite(DType dtype, std::span<const std::byte> bytes) {
  switch (dtype) {
    case DType::kF16:
      return check<std::uint16_t, 0x7C00>(bytes);
    case DType::kBF16:
      return check<std::uint16_t, 0x7F80>(bytes);
    case DType::kF32:
      return check<std::uint32_t, 0x7F800000>(bytes);
    case DType::kF64:
      return check<std::uint64_t, 0x7FF0000000000000>(bytes);
    default:
      return true;
  }
}

}  // namespace limner::engine::weights
