#include "image/vips_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

namespace limner::image {
namespace {

constexpr const char* kLibrary = "libvips.so.42";

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function) {
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("[image] {} has no function {}", kLibrary, name));
  }
}

Vips open_vips() {
  // Kept open for the life of the process: GLib's types cannot be unloaded.
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("[image] only PNG can be written here, and nothing read: {}; install "
                              "libvips42",
                              dlerror()));
  }
  Vips vips{};
  find(library, "vips_init", vips.init);
  find(library, "vips_concurrency_set", vips.concurrency_set);
  find(library, "vips_cache_set_max", vips.cache_set_max);
  find(library, "vips_block_untrusted_set", vips.block_untrusted_set);
  find(library, "vips_image_new_from_memory", vips.image_new_from_memory);
  find(library, "vips_image_new_from_buffer", vips.image_new_from_buffer);
  find(library, "vips_image_get_bands", vips.image_get_bands);
  find(library, "vips_image_get_width", vips.image_get_width);
  find(library, "vips_image_get_height", vips.image_get_height);
  find(library, "vips_colourspace", vips.colourspace);
  find(library, "vips_autorot", vips.autorot);
  find(library, "vips_extract_band", vips.extract_band);
  find(library, "vips_copy", vips.copy);
  find(library, "vips_image_set_blob_copy", vips.image_set_blob_copy);
  find(library, "vips_image_write_to_buffer", vips.image_write_to_buffer);
  find(library, "vips_image_write_to_memory", vips.image_write_to_memory);
  find(library, "vips_foreign_find_save_target", vips.find_save_target);
  find(library, "vips_error_buffer_copy", vips.error_buffer_copy);
  find(library, "g_object_unref", vips.object_unref);
  find(library, "g_free", vips.free);
  if (vips.init("limner") != 0) {
    throw Failure(ErrorCode::kUnsupported, fmt::format("[image] {} does not start", kLibrary));
  }
  // The engine's threads own the cores, and no picture is encoded twice.
  vips.concurrency_set(1);
  vips.cache_set_max(0);
  // Only loaders that libvips has fuzzed.
  vips.block_untrusted_set(TRUE);
  return vips;
}

}  // namespace

const Vips& shared_vips() {
  static const Vips vips = open_vips();
  return vips;
}

std::mutex& vips_mutex() {
  static std::mutex one_at_a_time;
  return one_at_a_time;
}

std::string take_vips_error(const Vips& vips) {
  char* text = vips.error_buffer_copy();
  std::string message = text ? text : "";
  vips.free(text);
  while (!message.empty() && message.back() == '\n') message.pop_back();
  for (char& c : message) c = c == '\n' ? ' ' : c;
  return message;
}

}  // namespace limner::image
