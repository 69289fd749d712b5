#include "image/header.h"

#include <gtest/gtest.h>

#include <string>

namespace limner::image {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes encoded(Format format, std::int64_t width, std::int64_t height) {
  const Bitmap bitmap{.width = width,
                      .height = height,
                      .pixels = Bytes(static_cast<std::size_t>(width * height * 3), 90)};
  const auto made = encode(bitmap, {.format = format, .text = {{"parameters", "a"}}});
  return made.ok() ? *made : Bytes{};
}

TEST(ImageHeader, TellsWhatTheEncodersWrote) {
  for (const Format format : {Format::kPng, Format::kJpeg, Format::kWebp}) {
    const Bytes bytes = encoded(format, 67, 33);
    if (bytes.empty()) continue;  // a build without the format
    const auto header = read_header(bytes);
    ASSERT_TRUE(header.ok()) << header.error().message;
    EXPECT_EQ(header->format, format);
    EXPECT_EQ(header->width, 67);
    EXPECT_EQ(header->height, 33);
  }
}

// The three kinds of WebP as Pillow 11 writes a picture of 5 x 3: lossy, lossless, with EXIF.
TEST(ImageHeader, KnowsTheThreeKindsOfWebp) {
  const std::string riff("RIFF\x1a\0\0\0WEBP", 12);
  const std::string lossy =
      riff + std::string("VP8 \x0e\0\0\0\x30\x01\0\x9d\x01\x2a\x05\0\x03\0", 18);
  const std::string lossless = riff + std::string("VP8L\x0e\0\0\0\x2f\x04\x80\0\0", 13);
  const std::string extended = riff + std::string("VP8X\x0a\0\0\0\x08\0\0\0\x04\0\0\x02\0\0", 18);
  for (const std::string& text : {lossy, lossless, extended}) {
    const auto header = read_header(Bytes(text.begin(), text.end()));
    ASSERT_TRUE(header.ok()) << header.error().message;
    EXPECT_EQ(header->width, 5);
    EXPECT_EQ(header->height, 3);
  }
}

TEST(ImageHeader, RefusesEveryCutAndNeverReadsBeyondIt) {
  for (const Format format : {Format::kPng, Format::kJpeg, Format::kWebp}) {
    const Bytes bytes = encoded(format, 16, 16);
    bool told = false;
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      const Bytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
      const bool ok = read_header(cut).ok();
      EXPECT_TRUE(ok || !told) << "told at fewer than " << size << " bytes, and then not";
      told = ok;
    }
  }
}

TEST(ImageHeader, RefusesWhatIsNoPicture) {
  const auto refusal = [](const std::string& text) {
    const auto header = read_header(Bytes(text.begin(), text.end()));
    return header.ok() ? std::optional<ErrorCode>() : header.error().code;
  };
  EXPECT_EQ(refusal("GIF89a"), ErrorCode::kUnsupported);
  EXPECT_EQ(refusal("<svg/>"), ErrorCode::kUnsupported);
  EXPECT_EQ(refusal(std::string("\xFF\xD8\xFF\xDA\0\x08", 6)), ErrorCode::kInvalidArgument);
  const std::string no_pixels("\x89PNG\r\n\x1A\n\0\0\0\rIHDR\0\0\0\0\0\0\0\1", 24);
  EXPECT_EQ(refusal(no_pixels), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace limner::image
