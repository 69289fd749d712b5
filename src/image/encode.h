// Bitmaps to file bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "image/bitmap.h"

namespace limner::image {

enum class Format { kPng, kJpeg, kWebp, kAvif };

Result<Format> format_from_name(std::string_view name);  // png, jpeg (jpg), webp, avif
std::string_view extension(Format format);               // ".png"

struct EncodeOptions {
  Format format = Format::kPng;
  int quality = 92;  // 1..100, for the lossy formats
  // Text chunks of a PNG (keyword -> UTF-8 text; "parameters" holds the A1111 infotext). For JPEG,
  // WebP and AVIF "parameters" goes into the EXIF UserComment, as A1111 does.
  std::map<std::string, std::string> text{};
};

// Safe to call from many threads. The bytes hold no time and no trace of the machine. Errors:
// kInvalidArgument (a bitmap that is not what it says, sides or quality out of range, text that is
// not UTF-8 or too long for a JPEG); kUnsupported when there is no encoder for the format (without
// libvips: PNG only).
Result<std::vector<std::uint8_t>> encode(const Bitmap& bitmap, const EncodeOptions& options);

// The text chunks of a PNG: tEXt, and iTXt that is not compressed. kInvalidArgument when the bytes
// are not a PNG, or one cut short or damaged; the message names the place.
Result<std::map<std::string, std::string>> read_png_text(std::span<const std::uint8_t> bytes);

// Writes to a temporary file beside `path`, flushes it to the disk and renames it: there is never a
// half file. A device or pipe is written to in place. Errors: kNotFound (no such folder), kIo (full
// disk, no permission, ...).
Result<void> write_file(const std::filesystem::path& path, std::span<const std::uint8_t> bytes);

}  // namespace limner::image
