#include "image/decode.h"

#include <gtest/gtest.h>

#include <cmath>

#include "image/encode.h"

namespace limner::image {
namespace {

Bitmap gradient(std::int64_t width, std::int64_t height) {
  Bitmap bitmap{width, height, {}};
  for (std::int64_t i = 0; i < width * height * 3; ++i) {
    bitmap.pixels.push_back(static_cast<std::uint8_t>(i * 255 / (width * height * 3)));
  }
  return bitmap;
}

TEST(Decode, IsTheOtherWayOfEncode) {
  const Bitmap bitmap = gradient(33, 17);
  const auto back = decode(encode(bitmap, {}).value());
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(back->width, 33);
  EXPECT_EQ(back->height, 17);
  EXPECT_EQ(back->pixels, bitmap.pixels);
  for (const Format format : {Format::kJpeg, Format::kWebp}) {
    const auto lossy = decode(encode(bitmap, {.format = format, .quality = 95}).value());
    ASSERT_TRUE(lossy.ok()) << lossy.error().message;
    ASSERT_EQ(lossy->pixels.size(), bitmap.pixels.size());
    double sum = 0;
    for (std::size_t i = 0; i < bitmap.pixels.size(); ++i) {
      sum += std::abs(lossy->pixels[i] - bitmap.pixels[i]);
    }
    EXPECT_LT(sum / static_cast<double>(bitmap.pixels.size()), 4.0) << extension(format);
  }
}

TEST(Decode, RefusesWhatIsCutShortOrDamaged) {
  for (const Format format : {Format::kPng, Format::kJpeg, Format::kWebp}) {
    auto bytes = encode(gradient(64, 64), {.format = format}).value();
    const std::span<const std::uint8_t> all(bytes);
    for (const std::size_t length : {bytes.size() / 2, bytes.size() * 3 / 4}) {
      const auto cut = decode(all.first(length));
      ASSERT_FALSE(cut.ok()) << extension(format) << " " << length;
      EXPECT_EQ(cut.error().code, ErrorCode::kInvalidArgument) << cut.error().message;
    }
  }
  auto png = encode(gradient(64, 64), {}).value();
  png[png.size() / 2] ^= 0x55;
  EXPECT_EQ(decode(png).error().code, ErrorCode::kInvalidArgument);
}

TEST(Decode, RefusesWhatIsTooLargeBeforeItDecodes) {
  const auto bytes = encode(gradient(40, 20), {}).value();
  EXPECT_TRUE(decode(bytes, {.side = 40, .pixels = 800}).ok());
  EXPECT_EQ(decode(bytes, {.side = 39, .pixels = 800}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(decode(bytes, {.side = 40, .pixels = 799}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(decode({}).error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace limner::image
