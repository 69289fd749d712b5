// PNG without a library: 8-bit RGB, text chunks.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "image/bitmap.h"

namespace limner::image {

// `bitmap` must be consistent (encode() checks it). Text goes before the pixels, as tEXt where
// Latin-1 can hold it, else as iTXt, as Pillow does; a NUL in it, which neither can hold, becomes
// U+FFFD. Nothing else is written: no time, no software name. Errors: kInvalidArgument for a
// keyword that PNG does not allow, or text that is not UTF-8.
Result<std::vector<std::uint8_t>> encode_png(const Bitmap& bitmap,
                                             const std::map<std::string, std::string>& text);

}  // namespace limner::image
