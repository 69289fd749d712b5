// Reads back with libvips what was written; the test links it, the room does not.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <vips/vips8>

#include "image/encode.h"

namespace limner::image {
namespace {

Bitmap gradient(std::int64_t width, std::int64_t height) {
  Bitmap bitmap{width, height, {}};
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c)
        bitmap.pixels.push_back(static_cast<std::uint8_t>((c == 0   ? x
                                                           : c == 1 ? y
                                                                    : x + y) *
                                                          255 / (width + height)));
    }
  }
  return bitmap;
}

double psnr(const Bitmap& bitmap, const std::vector<std::uint8_t>& bytes) {
  vips::VImage read = vips::VImage::new_from_buffer(bytes.data(), bytes.size(), "");
  EXPECT_EQ(read.width(), bitmap.width);
  EXPECT_EQ(read.height(), bitmap.height);
  EXPECT_EQ(read.bands(), 3);
  std::size_t size = 0;
  auto* pixels = static_cast<std::uint8_t*>(read.write_to_memory(&size));
  EXPECT_EQ(size, bitmap.pixels.size());
  double sum = 0;
  for (std::size_t i = 0; i < std::min(size, bitmap.pixels.size()); ++i)
    sum += std::pow(pixels[i] - bitmap.pixels[i], 2);
  g_free(pixels);
  return sum == 0 ? 99 : 10 * std::log10(255.0 * 255.0 * static_cast<double>(size) / sum);
}

TEST(EncodeVips, EveryFormatShowsThePicture) {
  for (const auto& [width, height] : {std::pair<int, int>{1, 1}, {3, 2}, {33, 65}, {128, 128}}) {
    const Bitmap bitmap = gradient(width, height);
    for (const Format format : {Format::kPng, Format::kJpeg, Format::kWebp, Format::kAvif}) {
      const auto bytes =
          encode(bitmap, {.format = format, .quality = 95, .text = {{"parameters", "Steps: 3"}}});
      ASSERT_TRUE(bytes.ok()) << bytes.error().message;
      // Halved chroma spoils a picture of a few pixels.
      const double least = format == Format::kPng ? 98 : width < 16 ? 20 : 32;
      EXPECT_GT(psnr(bitmap, *bytes), least) << extension(format) << " " << width << "x" << height;
    }
  }
}

TEST(EncodeVips, JpegIsProgressive) {
  const auto bytes = encode(gradient(64, 64), {.format = Format::kJpeg});
  ASSERT_TRUE(bytes.ok());
  const std::uint8_t progressive_frame[] = {0xFF, 0xC2};
  EXPECT_NE(std::search(bytes->begin(), bytes->end(), std::begin(progressive_frame),
                        std::end(progressive_frame)),
            bytes->end());
}

TEST(EncodeVips, QualityChangesTheSize) {
  for (const Format format : {Format::kJpeg, Format::kWebp, Format::kAvif}) {
    EXPECT_LT(encode(gradient(128, 128), {.format = format, .quality = 20})->size(),
              encode(gradient(128, 128), {.format = format, .quality = 98})->size());
  }
}

TEST(EncodeVips, ParametersAreInTheUserComment) {
  const std::u16string text = u"a caf\u00e9, \u732b \U0001F600\nSteps: 3";
  std::vector<std::uint8_t> wanted = {'U', 'N', 'I', 'C', 'O', 'D', 'E', 0};
  for (const char16_t unit : text) {
    wanted.push_back(static_cast<std::uint8_t>(unit >> 8));
    wanted.push_back(static_cast<std::uint8_t>(unit));
  }
  for (const Format format : {Format::kJpeg, Format::kWebp, Format::kAvif}) {
    const auto bytes = encode(
        gradient(16, 16),
        {.format = format, .text = {{"parameters", "a caf\u00e9, \u732b \U0001F600\nSteps: 3"}}});
    ASSERT_TRUE(bytes.ok());
    EXPECT_NE(std::search(bytes->begin(), bytes->end(), wanted.begin(), wanted.end()), bytes->end())
        << extension(format);
    const auto copy = *encode(
        gradient(16, 16),
        {.format = format, .text = {{"parameters", "a caf\u00e9, \u732b \U0001F600\nSteps: 3"}}});
    EXPECT_EQ(copy, *bytes) << extension(format);
  }
}

TEST(EncodeVips, ThreadsMayEncodeAtTheSameTime) {
  const Bitmap bitmap = gradient(40, 40);
  const auto wanted = *encode(bitmap, {.format = Format::kWebp});
  std::vector<std::thread> threads;
  std::vector<int> equal(4);
  for (std::size_t i = 0; i < equal.size(); ++i) {
    threads.emplace_back(
        [&, i] { equal[i] = *encode(bitmap, {.format = Format::kWebp}) == wanted; });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(equal, std::vector<int>(4, 1));
}

}  // namespace
}  // namespace limner::image
