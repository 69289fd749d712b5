#include "image/encode.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/suggest.h"
#include "image/encode_lossy.h"
#include "image/exif.h"
#include "image/png.h"

namespace limner::image {
namespace {

// The longest side that each format can say.
std::int64_t longest_side(Format format) {
  switch (format) {
    case Format::kPng:
      return 0x7FFFFFFF;
    case Format::kJpeg:
      return 65500;
    case Format::kWebp:
      return 16383;
    case Format::kAvif:
      return 16384;
  }
  return 0;
}

// A JPEG segment has 16 bits of length; libvips adds some tags of its own.
constexpr std::size_t kLargestJpegExif = 65000;

Error invalid(std::string what) {
  return {ErrorCode::kInvalidArgument, "[image.encode] " + std::move(what)};
}

Result<void> check(const Bitmap& bitmap, const EncodeOptions& options) {
  const std::int64_t most = longest_side(options.format);
  const bool sides =
      bitmap.width >= 1 && bitmap.height >= 1 && bitmap.width <= most && bitmap.height <= most;
  if (!sides) {
    return invalid(fmt::format("want sides of 1 to {} pixels for {}, got {}x{}", most,
                               extension(options.format).substr(1), bitmap.width, bitmap.height));
  }
  const auto width = static_cast<std::size_t>(bitmap.width),
             height = static_cast<std::size_t>(bitmap.height);
  if (bitmap.pixels.size() % 3 != 0 || bitmap.pixels.size() / 3 / width != height ||
      bitmap.pixels.size() / 3 % width != 0) {
    return invalid(fmt::format("want {}x{} pixels of 3 bytes, got {} bytes", width, height,
                               bitmap.pixels.size()));
  }
  if (options.format != Format::kPng && (options.quality < 1 || options.quality > 100)) {
    return invalid(fmt::format("want a quality of 1 to 100, got {}", options.quality));
  }
  return {};
}

}  // namespace

Result<Format> format_from_name(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, Format>, 5> kNames = {
      {{"png", Format::kPng},
       {"jpeg", Format::kJpeg},
       {"jpg", Format::kJpeg},
       {"webp", Format::kWebp},
       {"avif", Format::kAvif}}};
  std::vector<std::string> known;
  for (const auto& [known_name, format] : kNames) {
    if (name == known_name) return format;
    known.emplace_back(known_name);
  }
  return invalid(fmt::format("want png, jpeg, webp or avif as the format, got '{}'{}",
                             name.substr(0, 80), did_you_mean(name.substr(0, 80), known)));
}

std::string_view extension(Format format) {
  switch (format) {
    case Format::kPng:
      return ".png";
    case Format::kJpeg:
      return ".jpg";
    case Format::kWebp:
      return ".webp";
    case Format::kAvif:
      return ".avif";
  }
  return "";
}

Result<std::vector<std::uint8_t>> encode(const Bitmap& bitmap, const EncodeOptions& options) {
  if (const auto checked = check(bitmap, options); !checked) return checked.error();
  if (options.format == Format::kPng) return encode_png(bitmap, options.text);
  std::vector<std::uint8_t> exif;
  if (const auto parameters = options.text.find("parameters"); parameters != options.text.end()) {
    auto built = exif_user_comment(parameters->second);
    if (!built) return built.error();
    exif = std::move(built).value();
  }
  if (options.format == Format::kJpeg && exif.size() > kLargestJpegExif) {
    return invalid(
        fmt::format("want parameters of at most {} characters for a JPEG, got {}; a PNG holds them",
                    kLargestJpegExif / 2, exif.size() / 2));
  }
  return encode_lossy(bitmap, options.format, options.quality, exif);
}

}  // namespace limner::image
