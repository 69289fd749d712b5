// The EXIF block that carries a picture's parameters in formats without text chunks.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::image {

// "Exif\0\0" and a TIFF structure with one tag, UserComment: the prefix "UNICODE\0" and UTF-16,
// high byte first (as piexif writes it, and so the A1111 web UI). Errors: kInvalidArgument when the
// text is not UTF-8 or above 256 MiB.
Result<std::vector<std::uint8_t>> exif_user_comment(std::string_view text);

}  // namespace limner::image
