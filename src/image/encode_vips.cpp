// libvips is opened on first use, not linked: it brings about a hundred libraries, which cost every
// start of the program 20 ms and more, and most runs write PNG.
#include <dlfcn.h>
#include <fmt/format.h>
#include <vips/vips.h>

#include <memory>
#include <mutex>
#include <string>

#include "image/encode_lossy.h"

namespace limner::image {
namespace {

constexpr const char* kLibrary = "libvips.so.42";

// The functions used, by the types that the headers declare.
struct Vips {
  decltype(&::vips_init) init;
  decltype(&::vips_concurrency_set) concurrency_set;
  decltype(&::vips_cache_set_max) cache_set_max;
  decltype(&::vips_image_new_from_memory) image_new_from_memory;
  decltype(&::vips_copy) copy;
  decltype(&::vips_image_set_blob_copy) image_set_blob_copy;
  decltype(&::vips_image_write_to_buffer) image_write_to_buffer;
  decltype(&::vips_foreign_find_save_target) find_save_target;
  decltype(&::vips_error_buffer_copy) error_buffer_copy;
  decltype(&::g_object_unref) object_unref;
  decltype(&::g_free) free;
};

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function) {
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("[image.encode] {} has no function {}", kLibrary, name));
  }
}

Vips open_vips() {
  // Kept open for the life of the process: GLib's types cannot be unloaded.
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("[image.encode] only PNG can be written here: {}; install libvips42",
                              dlerror()));
  }
  Vips vips{};
  find(library, "vips_init", vips.init);
  find(library, "vips_concurrency_set", vips.concurrency_set);
  find(library, "vips_cache_set_max", vips.cache_set_max);
  find(library, "vips_image_new_from_memory", vips.image_new_from_memory);
  find(library, "vips_copy", vips.copy);
  find(library, "vips_image_set_blob_copy", vips.image_set_blob_copy);
  find(library, "vips_image_write_to_buffer", vips.image_write_to_buffer);
  find(library, "vips_foreign_find_save_target", vips.find_save_target);
  find(library, "vips_error_buffer_copy", vips.error_buffer_copy);
  find(library, "g_object_unref", vips.object_unref);
  find(library, "g_free", vips.free);
  if (vips.init("limner") != 0) {
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("[image.encode] {} does not start", kLibrary));
  }
  // The engine's threads own the cores, and no picture is encoded twice.
  vips.concurrency_set(1);
  vips.cache_set_max(0);
  return vips;
}

const Vips& shared_vips() {
  static const Vips vips = open_vips();
  return vips;
}

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

std::string take_error(const Vips& vips) {
  char* text = vips.error_buffer_copy();
  std::string message = text ? text : "";
  vips.free(text);
  while (!message.empty() && message.back() == '\n') message.pop_back();
  for (char& c : message) c = c == '\n' ? ' ' : c;
  return message;
}

std::vector<std::uint8_t> save(const Vips& vips, const Bitmap& bitmap, Format format, int quality,
                               std::span<const std::uint8_t> exif) {
  const std::string options = save_options(format, quality);
  const auto fail = [&](ErrorCode code) {
    return Failure(code, fmt::format("[image.encode] libvips cannot write {}: {}",
                                     extension(format).substr(1), take_error(vips)));
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
  // libvips keeps one error text for all threads.
  static std::mutex one_at_a_time;
  const std::scoped_lock lock(one_at_a_time);
  try {
    return save(shared_vips(), bitmap, format, quality, exif);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::image
