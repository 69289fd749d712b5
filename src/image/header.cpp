#include "image/header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace limner::image {
namespace {

using Bytes = std::span<const std::uint8_t>;

[[noreturn]] void fail(std::string_view what) {
  throw Failure(ErrorCode::kInvalidArgument, fmt::format("[image.header] {}", what));
}

bool begins_with(Bytes bytes, std::string_view text, std::size_t at = 0) {
  return bytes.size() >= at + text.size() &&
         std::equal(
             text.begin(), text.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at),
             [](char want, std::uint8_t got) { return static_cast<std::uint8_t>(want) == got; });
}

std::int64_t big_endian(Bytes bytes, std::size_t at, std::size_t count) {
  if (bytes.size() < at + count) fail("the file ends inside its header");
  std::int64_t value = 0;
  for (std::size_t i = 0; i < count; ++i) value = value << 8 | bytes[at + i];
  return value;
}

std::int64_t little_endian(Bytes bytes, std::size_t at, std::size_t count) {
  if (bytes.size() < at + count) fail("the file ends inside its header");
  std::int64_t value = 0;
  for (std::size_t i = count; i-- > 0;) value = value << 8 | bytes[at + i];
  return value;
}

Header read_png(Bytes bytes) {
  if (!begins_with(bytes, "IHDR", 12)) fail("a PNG whose first chunk is not IHDR");
  return {Format::kPng, big_endian(bytes, 16, 4), big_endian(bytes, 20, 4)};
}

// SOF0 to SOF15, without the three codes among them that mean something else.
bool is_frame_header(std::int64_t marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

Header read_jpeg(Bytes bytes) {
  std::size_t at = 2;
  while (true) {
    if (big_endian(bytes, at, 1) != 0xFF) fail("a JPEG with bytes between its segments");
    while (big_endian(bytes, at, 1) == 0xFF) ++at;  // fill bytes
    const std::int64_t marker = big_endian(bytes, at++, 1);
    if (is_frame_header(marker)) {
      return {Format::kJpeg, big_endian(bytes, at + 5, 2), big_endian(bytes, at + 3, 2)};
    }
    if (marker == 0xD9 || marker == 0xDA) fail("a JPEG without a frame header before its pixels");
    const bool alone = marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8);
    if (alone) continue;
    const std::int64_t length = big_endian(bytes, at, 2);
    if (length < 2) fail("a JPEG with a segment shorter than its own length");
    at += static_cast<std::size_t>(length);
  }
}

Header read_webp(Bytes bytes) {
  if (begins_with(bytes, "VP8X", 12)) {
    return {Format::kWebp, little_endian(bytes, 24, 3) + 1, little_endian(bytes, 27, 3) + 1};
  }
  if (begins_with(bytes, "VP8L", 12)) {
    if (little_endian(bytes, 20, 1) != 0x2F) fail("a lossless WebP without its signature");
    const std::int64_t bits = little_endian(bytes, 21, 4);
    return {Format::kWebp, (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1};
  }
  if (begins_with(bytes, "VP8 ", 12)) {
    if (!begins_with(bytes, "\x9D\x01\x2A", 23)) fail("a WebP whose first frame is no key frame");
    return {Format::kWebp, little_endian(bytes, 26, 2) & 0x3FFF,
            little_endian(bytes, 28, 2) & 0x3FFF};
  }
  fail("a WebP without a picture");
}

Header read(Bytes bytes) {
  if (begins_with(bytes, "\x89PNG\r\n\x1A\n")) return read_png(bytes);
  if (begins_with(bytes, "\xFF\xD8\xFF")) return read_jpeg(bytes);
  if (begins_with(bytes, "RIFF") && begins_with(bytes, "WEBP", 8)) return read_webp(bytes);
  throw Failure(ErrorCode::kUnsupported, "[image.header] want a PNG, JPEG or WebP");
}

}  // namespace

Result<Header> read_header(Bytes bytes) {
  try {
    const Header header = read(bytes);
    if (header.width < 1 || header.height < 1) fail("a picture without pixels");
    return header;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::image
