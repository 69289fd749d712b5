#include "image/decode.h"

namespace limner::image {

Result<Bitmap> decode(std::span<const std::uint8_t>, const DecodeLimits&) {
  return Error{ErrorCode::kUnsupported,
               "[image.decode] this build reads no pictures; install libvips-dev and build again"};
}

}  // namespace limner::image
