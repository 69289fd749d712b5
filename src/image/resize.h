// Bitmaps made smaller or larger.
#pragma once

#include "base/error.h"
#include "image/bitmap.h"

namespace limner::image {

// Lanczos with three lobes, widened when shrinking so that nothing aliases; bit for bit what
// Pillow's Image.resize(size, Image.LANCZOS) makes of 8-bit RGB: rows first, weights in 22-bit
// fixed point. Errors: kInvalidArgument (a bitmap that is not what it says, sides
// outside 1..65535).
Result<Bitmap> resize(const Bitmap& bitmap, std::int64_t width, std::int64_t height);

}  // namespace limner::image
