// Bitmap: an 8-bit RGB picture in memory.
#pragma once

#include <cstdint>
#include <vector>

namespace limner::image {

// Rows top to bottom, pixels left to right, R G B interleaved, no padding: pixels.size() == width *
// height * 3.
struct Bitmap {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::vector<std::uint8_t> pixels;
};

}  // namespace limner::image
