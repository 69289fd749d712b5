// SHA-256 (FIPS 180-4), with the processor's SHA instructions where it has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace limner {

// Used by one thread. After finish() the object is spent.
class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  std::array<std::uint8_t, 32> finish();

 private:
  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> block_ = {};
  std::uint64_t length_ = 0;  // bytes so far
};

// 64 lower-case hexadecimal digits.
std::string sha256_hex(std::span<const std::byte> bytes);
std::string to_hex(std::span<const std::uint8_t> bytes);

namespace detail {
// The two ways to take in 64-byte blocks; exposed so that a test can hold them against each other.
using Sha256Blocks = void (*)(std::array<std::uint32_t, 8>& state, const std::byte* blocks,
                              std::size_t count);
void sha256_blocks_portable(std::array<std::uint32_t, 8>& state, const std::byte* blocks,
                            std::size_t count);
// The fast one, or the portable one where this processor has no SHA instructions.
Sha256Blocks sha256_blocks();
}  // namespace detail

}  // namespace limner
