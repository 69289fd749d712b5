// What a picture file says it is, read from its first bytes and without decoding a pixel.
#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"
#include "image/encode.h"

namespace limner::image {

struct Header {
  Format format = Format::kPng;
  std::int64_t width = 0;  // pixels; at least 1
  std::int64_t height = 0;
};

// PNG (W3C PNG, section 11.2.1), JPEG (ITU-T T.81, annex B: the frame header) and WebP (RFC 9649;
// VP8, VP8L and VP8X). The content decides, never a name. Errors: kUnsupported for bytes that begin
// like none of these; kInvalidArgument for a file that is cut short or says nonsense before its
// size is told.
Result<Header> read_header(std::span<const std::uint8_t> bytes);

}  // namespace limner::image
