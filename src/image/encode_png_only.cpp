#include <fmt/format.h>

#include "image/encode_lossy.h"

namespace limner::image {

Result<std::vector<std::uint8_t>> encode_lossy(const Bitmap&, Format format, int,
                                               std::span<const std::uint8_t>) {
  return Error{
      ErrorCode::kUnsupported,
      fmt::format(
          "[image.encode] this build writes PNG only, got {}; install libvips-dev and build again",
          extension(format).substr(1))};
}

}  // namespace limner::image
