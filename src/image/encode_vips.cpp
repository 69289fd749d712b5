#include <fmt/format.h>

#include <memory>
#include <mutex>
#include <string>

#include "image/encode_lossy.h"
#include "image/vips_library.h"

namespace limner::image {
namespace {

// AVIF's default effort takes five times as long for a quarter fewer bytes.
std::string save_options(Format format, int quality) {
  switch (format) {
    case Format::kJpeg:
      return fmt::format(".jpg[Q={},interlace=true,optimize_coding=true]", quality);
    case Format::kWebp:
      return fmt::format(".webp[Q={}]", quality);
    default:
      return fmt::format(".avif[Q={},effort=2]", quality);
  }
}

std::vector<std::uint8_t> save(const Vips& vips, const Bitmap& bitmap, Format format, int quality,
                               std::span<const std::uint8_t> exif) {
  const std::string options = save_options(format, quality);
  const auto fail = [&](ErrorCode code) {
    return Failure(code, fmt::format("[image.encode] libvips cannot write {}: {}",
                                     extension(format).substr(1), take_vips_error(vips)));
  };
  if (!vips.find_save_target(options.substr(0, options.find('[')).c_str()))
    throw fail(ErrorCode::kUnsupported);

  const auto unref = [&](VipsImage* image) { vips.object_unref(image); };
  using Image = std::unique_ptr<VipsImage, decltype(unref)>;
  const Image pixels(vips.image_new_from_memory(
                         bitmap.pixels.data(), bitmap.pixels.size(), static_cast<int>(bitmap.width),
                         static_cast<int>(bitmap.height), 3, VIPS_FORMAT_UCHAR),
                     unref);
  if (!pixels) throw fail(ErrorCode::kInternal);
  VipsImage* copied = nullptr;
  if (vips.copy(pixels.get(), &copied, "interpretation", VIPS_INTERPRETATION_sRGB, nullptr) != 0) {
    throw fail(ErrorCode::kInternal);
  }
  const Image image(copied, unref);
  if (!exif.empty())
    vips.image_set_blob_copy(image.get(), VIPS_META_EXIF_NAME, exif.data(), exif.size());
  void* buffer = nullptr;
  std::size_t size = 0;
  if (vips.image_write_to_buffer(image.get(), options.c_str(), &buffer, &size, nullptr) != 0) {
    throw fail(ErrorCode::kUnsupported);
  }
  const auto* begin = static_cast<const std::uint8_t*>(buffer);
  std::vector<std::uint8_t> bytes(begin, begin + size);
  vips.free(buffer);
  return bytes;
}

}  // namespace

Result<std::vector<std::uint8_t>> encode_lossy(const Bitmap& bitmap, Format format, int quality,
                                               std::span<const std::uint8_t> exif) {
  const std::scoped_lock lock(vips_mutex());
  try {
    return save(shared_vips(), bitmap, format, quality, exif);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::image
