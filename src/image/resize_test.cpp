#include "image/resize.h"

#include <gtest/gtest.h>

#include "base/sha256.h"

namespace limner::image {
namespace {

// Half noise, half gradient.
Bitmap picture(std::int64_t width, std::int64_t height) {
  Bitmap bitmap{width, height, {}};
  std::uint32_t state = 1;
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(width * height * 3); ++i) {
    state = (state * 1103515245u + 12345u) & 0x7fffffffu;
    bitmap.pixels.push_back(static_cast<std::uint8_t>(i / 64 % 2 == 1 ? i * 7 / 3 : state >> 16));
  }
  return bitmap;
}

// SHA-256 of what Pillow 13's Image.resize(size, Image.LANCZOS) makes of the same picture.
TEST(Resize, EqualsPillowBitForBit) {
  struct Case {
    std::int64_t width, height, new_width, new_height;
    const char* sha256;
  };
  const Case cases[] = {
      {64, 48, 16, 12, "0a19464ee2d9e84d9f287f5937255a2a808a1f473a448e762fc1fb9b73f96d3a"},
      {64, 48, 17, 48, "b513d4bbdf949d28de08be42cdca56e6505dad0c6147252c3a82e849026dd70d"},
      {64, 48, 64, 5, "7395b59de208dbd7516b0b9ee81103878ec8abba96a363197ec92225a277a297"},
      {31, 57, 7, 100, "edc10997215c4740f90b780b6664f66e8c82ff6fb9db6afe19c3390c98aed9e2"},
      {5, 3, 40, 24, "f9d5ad544f833bfb238df6d8f82be92e330528b8368701f553b57d3ad94b7a58"},
      {200, 100, 1, 1, "070506f45b3ffbd82b4e3b520a1ea925c8582e24a5fd29486b4d171960ed1a14"},
      {96, 96, 95, 97, "70142c447b64c0d6a06fb3d5d10b9e63de89b696d711b5b3d4f4554463f55d33"},
  };
  for (const Case& c : cases) {
    const auto resized = resize(picture(c.width, c.height), c.new_width, c.new_height);
    ASSERT_TRUE(resized.ok()) << resized.error().message;
    EXPECT_EQ(resized->width, c.new_width);
    EXPECT_EQ(resized->height, c.new_height);
    EXPECT_EQ(sha256_hex(std::as_bytes(std::span(resized->pixels))), c.sha256)
        << c.width << "x" << c.height << " to " << c.new_width << "x" << c.new_height;
  }
}

TEST(Resize, AFlatPictureStaysFlatAndTheSameSizeStaysTheSame) {
  const Bitmap flat{50, 40, std::vector<std::uint8_t>(50 * 40 * 3, 77)};
  const auto resized = resize(flat, 13, 90);
  ASSERT_TRUE(resized.ok());
  EXPECT_EQ(resized->pixels, std::vector<std::uint8_t>(13 * 90 * 3, 77));
  const Bitmap noise = picture(20, 10);
  EXPECT_EQ(resize(noise, 20, 10)->pixels, noise.pixels);
}

TEST(Resize, ImpossibleSidesAndLyingBitmapsAreRefused) {
  const Bitmap good = picture(4, 4);
  for (const auto& [width, height] : {std::pair<std::int64_t, std::int64_t>{0, 4},
                                      {4, -1},
                                      {65536, 1},
                                      {1, std::int64_t{1} << 62}}) {
    EXPECT_EQ(resize(good, width, height).error().code, ErrorCode::kInvalidArgument);
  }
  Bitmap lying = good;
  lying.width = 5;
  EXPECT_EQ(resize(lying, 2, 2).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(resize({}, 2, 2).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace limner::image
