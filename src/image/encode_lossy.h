// JPEG, WebP and AVIF. encode_vips.cpp uses libvips; encode_png_only.cpp, for builds without it,
// refuses.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "image/bitmap.h"
#include "image/encode.h"

namespace limner::image {

// `bitmap` and `quality` must be in range (encode() checks them); `exif` is "Exif\0\0" and a TIFF
// structure, or empty. Safe to call from many threads; the first call loads libvips.
Result<std::vector<std::uint8_t>> encode_lossy(const Bitmap& bitmap, Format format, int quality,
                                               std::span<const std::uint8_t> exif);

}  // namespace limner::image
