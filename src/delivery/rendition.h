// A finished picture as the files that are stored: itself in the format asked for, and thumbnails.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "image/bitmap.h"
#include "image/encode.h"

namespace limner::delivery {

struct RenditionOptions {
  // Its text goes into the picture and never into a thumbnail: a preview shown to others does not
  // give the prompt away.
  image::EncodeOptions picture{};
  std::vector<std::int64_t> thumbnails{};  // longest sides in pixels, 16..2048; eight at most
  image::Format thumbnail_format = image::Format::kJpeg;
  int thumbnail_quality = 80;
};

struct Rendition {
  image::Format format = image::Format::kPng;
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> bytes;
};

struct Renditions {
  Rendition picture;
  std::vector<Rendition> thumbnails;  // in the order asked for
};

// A thumbnail keeps the picture's proportions and is never larger than it. Safe to call from many
// threads. Errors: as image::encode, and kInvalidArgument for sizes out of range.
Result<Renditions> render(const image::Bitmap& bitmap, const RenditionOptions& options);

}  // namespace limner::delivery
