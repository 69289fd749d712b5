#include "engine/weights/checkpoint/convert_dtype.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

// IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 mantissa bits.
float from_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t exponent = half >> 10 & 0x1F, mantissa = half & 0x3FF;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000 | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float small = std::ldexp(static_cast<float>(mantissa), -24);
  return sign != 0 ? -small : small;
}

std::uint16_t to_half(float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = word & 0x7FFFFFFF;
  const auto sign = static_cast<std::uint16_t>(word >> 16 & 0x8000);
  if (magnitude > 0x7F800000) return static_cast<std::uint16_t>(sign | 0x7E00);
  if (magnitude >= 0x477FF000) return static_cast<std::uint16_t>(sign | 0x7C00);  // from 65520
  if (magnitude < 0x38800000) {
    // Below 2^-14 the spacing is 2^-24: adding 0.5 lines the bits up and rounds to nearest even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000));
  }
  const std::uint32_t odd = magnitude >> 13 & 1;
  return static_cast<std::uint16_t>(sign | (magnitude - 0x38000000 + 0xFFF + odd) >> 13);
}

std::uint16_t to_bfloat(float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  if ((word & 0x7FFFFFFF) > 0x7F800000) return static_cast<std::uint16_t>(word >> 16 | 0x40);
  return static_cast<std::uint16_t>((word + 0x7FFF + (word >> 16 & 1)) >> 16);
}

template <typename Stored, typename Convert>
std::vector<float> read(std::span<const std::byte> bytes, Convert convert) {
  std::vector<float> values(bytes.size() / sizeof(Stored));
  for (std::size_t i = 0; i < values.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    values[i] = convert(stored);
  }
  return values;
}

template <typename Stored, typename Convert>
std::vector<std::byte> write(std::span<const float> values, Convert convert) {
  std::vector<std::byte> bytes(values.size() * sizeof(Stored));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Stored stored = convert(values[i]);
    std::memcpy(bytes.data() + i * sizeof(Stored), &stored, sizeof(Stored));
  }
  return bytes;
}

}  // namespace

bool is_convertible(DType dtype) {
  return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kF16 ||
         dtype == DType::kBF16;
}

std::vector<float> to_floats(DType from, std::span<const std::byte> bytes) {
  switch (from) {
    case DType::kF64:
      return read<double>(bytes, [](double value) { return static_cast<float>(value); });
    case DType::kF16:
      return read<std::uint16_t>(bytes, from_half);
    case DType::kBF16:
      return read<std::uint16_t>(bytes, [](std::uint16_t value) {
        return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
      });
    default:
      return read<float>(bytes, [](float value) { return value; });
  }
}

std::vector<std::byte> from_floats(DType to, std::span<const float> values,
                                   const std::string& name) {
  switch (to) {
    case DType::kF16:
      for (const float value : values) {
        if (std::isfinite(value) && std::fabs(value) >= 65520.0f) {
          throw Failure(
              ErrorCode::kInvalidArgument,
              fmt::format("tensor {} holds {:g}, which float16 cannot (its largest number "
                          "is 65504); bfloat16 can",
                          quote(name), value));
        }
      }
      return write<std::uint16_t>(values, to_half);
    case DType::kBF16:
      return write<std::uint16_t>(values, to_bfloat);
    case DType::kF64:
      return write<double>(values, [](float value) { return static_cast<double>(value); });
    default:
      return write<float>(values, [](float value) { return value; });
  }
}

}  // namespace limner::engine::weights
