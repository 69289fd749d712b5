// File bytes to bitmaps.
#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"
#include "image/bitmap.h"

namespace limner::image {

struct DecodeLimits {
  std::int64_t side = 16'384;                    // pixels of the longer one
  std::int64_t pixels = std::int64_t{64} << 20;  // all of them
};

// PNG, JPEG and WebP; the content decides. Upright by its EXIF orientation, sRGB of 8 bits, without
// its transparency, as Pillow's exif_transpose() and convert("RGB") leave a picture. Sizes are
// checked before a pixel is decoded. Safe to call from many threads. Errors: as read_header;
// kInvalidArgument for a picture that is too large, damaged or cut short; kUnsupported without
// libvips.
Result<Bitmap> decode(std::span<const std::uint8_t> bytes, const DecodeLimits& limits = {});

}  // namespace limner::image
