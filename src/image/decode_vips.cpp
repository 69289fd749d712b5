#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "image/decode.h"
#include "image/header.h"
#include "image/vips_library.h"

namespace limner::image {
namespace {

struct Unref {
  const Vips* vips;
  void operator()(VipsImage* image) const { vips->object_unref(image); }
};
using Image = std::unique_ptr<VipsImage, Unref>;

Failure damaged(const Vips& vips) {
  return Failure(ErrorCode::kInvalidArgument,
                 fmt::format("[image.decode] the picture is damaged: {}", take_vips_error(vips)));
}

// What an operation made of `image`, which it keeps alive itself.
template <typename Operation>
Image made(const Vips& vips, Operation operation) {
  VipsImage* out = nullptr;
  if (operation(&out) != 0) throw damaged(vips);
  return Image(out, Unref{&vips});
}

Bitmap read(const Vips& vips, std::span<const std::uint8_t> bytes) {
  Image image(vips.image_new_from_buffer(bytes.data(), bytes.size(), "", "fail_on",
                                         VIPS_FAIL_ON_TRUNCATED, nullptr),
              Unref{&vips});
  if (!image) throw damaged(vips);
  image = made(vips, [&](VipsImage** out) { return vips.autorot(image.get(), out, nullptr); });
  image = made(vips, [&](VipsImage** out) {
    return vips.colourspace(image.get(), out, VIPS_INTERPRETATION_sRGB, nullptr);
  });
  if (vips.image_get_bands(image.get()) > 3) {
    image = made(vips, [&](VipsImage** out) {
      return vips.extract_band(image.get(), out, 0, "n", 3, nullptr);
    });
  }
  std::size_t size = 0;
  void* pixels = vips.image_write_to_memory(image.get(), &size);
  if (pixels == nullptr) throw damaged(vips);
  const auto* begin = static_cast<const std::uint8_t*>(pixels);
  Bitmap bitmap{vips.image_get_width(image.get()), vips.image_get_height(image.get()),
                std::vector<std::uint8_t>(begin, begin + size)};
  vips.free(pixels);
  if (bitmap.pixels.size() != static_cast<std::size_t>(bitmap.width * bitmap.height * 3)) {
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("[image.decode] want three bytes a pixel, got {} for {} x {}", size,
                              bitmap.width, bitmap.height));
  }
  return bitmap;
}

}  // namespace

Result<Bitmap> decode(std::span<const std::uint8_t> bytes, const DecodeLimits& limits) {
  const auto header = read_header(bytes);
  if (!header.ok()) return header.error();
  if (std::max(header->width, header->height) > limits.side ||
      header->width * header->height > limits.pixels) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[image.decode] {} x {} pixels are too many: a side may have {}, all "
                             "together {}",
                             header->width, header->height, limits.side, limits.pixels)};
  }
  const std::scoped_lock lock(vips_mutex());
  try {
    return read(shared_vips(), bytes);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::image
