// libvips is opened on first use, not linked: it brings about a hundred libraries, which cost every
// start of the program 20 ms and more, and most runs write PNG.
#pragma once

#include <vips/vips.h>

#include <mutex>
#include <string>

#include "base/error.h"

namespace limner::image {

// The functions used, by the types that the headers declare.
struct Vips {
  decltype(&::vips_init) init;
  decltype(&::vips_concurrency_set) concurrency_set;
  decltype(&::vips_cache_set_max) cache_set_max;
  decltype(&::vips_block_untrusted_set) block_untrusted_set;
  decltype(&::vips_image_new_from_memory) image_new_from_memory;
  decltype(&::vips_image_new_from_buffer) image_new_from_buffer;
  decltype(&::vips_image_get_bands) image_get_bands;
  decltype(&::vips_image_get_width) image_get_width;
  decltype(&::vips_image_get_height) image_get_height;
  decltype(&::vips_colourspace) colourspace;
  decltype(&::vips_autorot) autorot;
  decltype(&::vips_extract_band) extract_band;
  decltype(&::vips_copy) copy;
  decltype(&::vips_image_set_blob_copy) image_set_blob_copy;
  decltype(&::vips_image_write_to_buffer) image_write_to_buffer;
  decltype(&::vips_image_write_to_memory) image_write_to_memory;
  decltype(&::vips_foreign_find_save_target) find_save_target;
  decltype(&::vips_error_buffer_copy) error_buffer_copy;
  decltype(&::g_object_unref) object_unref;
  decltype(&::g_free) free;
};

// Throws Failure(kUnsupported) where it is not installed.
const Vips& shared_vips();

// Held by whoever calls it: libvips keeps one error text for all threads.
std::mutex& vips_mutex();
// What went wrong, in one line.
std::string take_vips_error(const Vips& vips);

}  // namespace limner::image
