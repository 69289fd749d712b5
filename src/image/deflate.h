// zlib streams (RFC 1950). deflate_zlib.cpp uses zlib; deflate_fixed.cpp, for builds without it,
// makes larger ones.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace limner::image {

std::vector<std::uint8_t> zlib_compress(std::span<const std::uint8_t> bytes);

}  // namespace limner::image
