#include "delivery/rendition.h"

#include <fmt/format.h>

#include <algorithm>

#include "image/resize.h"

namespace limner::delivery {
namespace {

constexpr std::int64_t kSmallest = 16, kLargest = 2048;
constexpr std::size_t kMostThumbnails = 8;

void check(const RenditionOptions& options) {
  if (options.thumbnails.size() > kMostThumbnails) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("[rendition] want at most {} thumbnails, got {}", kMostThumbnails,
                              options.thumbnails.size()));
  }
  for (const std::int64_t side : options.thumbnails) {
    if (side >= kSmallest && side <= kLargest) continue;
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("[rendition] want thumbnails of {} to {} pixels, got {}", kSmallest,
                              kLargest, side));
  }
}

Rendition encoded(const image::Bitmap& bitmap, const image::EncodeOptions& options) {
  return {options.format, bitmap.width, bitmap.height,
          image::encode(bitmap, options).value_or_throw()};
}

Rendition thumbnail(const image::Bitmap& bitmap, std::int64_t side,
                    const RenditionOptions& options) {
  const std::int64_t longest = std::max(bitmap.width, bitmap.height);
  side = std::min(side, longest);
  // Rounded, and at least a pixel.
  const auto scaled = [&](std::int64_t n) {
    return std::max<std::int64_t>(1, (2 * n * side + longest) / (2 * longest));
  };
  const image::Bitmap small =
      image::resize(bitmap, scaled(bitmap.width), scaled(bitmap.height)).value_or_throw();
  return encoded(small, {.format = options.thumbnail_format, .quality = options.thumbnail_quality});
}

}  // namespace

Result<Renditions> render(const image::Bitmap& bitmap, const RenditionOptions& options) {
  try {
    check(options);
    Renditions renditions{.picture = encoded(bitmap, options.picture), .thumbnails = {}};
    for (const std::int64_t side : options.thumbnails) {
      renditions.thumbnails.push_back(thumbnail(bitmap, side, options));
    }
    return renditions;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::delivery
