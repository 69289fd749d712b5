#include "engine/weights/checkpoint/convert_dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace limner::engine::weights {
namespace {

std::uint16_t word(DType dtype, float value) {
  const auto bytes = from_floats(dtype, std::span(&value, 1), "t");
  std::uint16_t stored;
  std::memcpy(&stored, bytes.data(), 2);
  return stored;
}

float back(DType dtype, std::uint16_t stored) {
  return to_floats(dtype, std::as_bytes(std::span(&stored, 1)))[0];
}

// Values of IEEE 754-2019: rounding to nearest, ties to the even neighbour.
TEST(ConvertDType, RoundsAsTheStandardSays) {
  EXPECT_EQ(word(DType::kF16, 1.0f), 0x3C00);
  EXPECT_EQ(word(DType::kF16, -2.0f), 0xC000);
  EXPECT_EQ(word(DType::kF16, -0.0f), 0x8000);
  EXPECT_EQ(word(DType::kF16, 65504.0f), 0x7BFF);
  EXPECT_EQ(word(DType::kF16, 65519.0f), 0x7BFF);
  EXPECT_EQ(word(DType::kF16, 1.0f + 0x1p-11f), 0x3C00);             // a tie, down
  EXPECT_EQ(word(DType::kF16, 1.0f + 3 * 0x1p-11f), 0x3C02);         // a tie, up
  EXPECT_EQ(word(DType::kF16, 1.0f + 0x1p-11f + 0x1p-20f), 0x3C01);  // above the tie
  EXPECT_EQ(word(DType::kF16, 0x1p-24f), 0x0001);
  EXPECT_EQ(word(DType::kF16, 0x1p-25f), 0x0000);
  EXPECT_EQ(word(DType::kF16, 1.5f * 0x1p-24f), 0x0002);
  EXPECT_EQ(word(DType::kF16, 0x1p-14f - 0x1p-26f), 0x0400);
  EXPECT_EQ(word(DType::kBF16, 1.0f + 0x1p-8f), 0x3F80);
  EXPECT_EQ(word(DType::kBF16, 1.0f + 3 * 0x1p-8f), 0x3F82);
  EXPECT_EQ(word(DType::kBF16, 1e38f), 0x7E96);
}

TEST(ConvertDType, EveryHalfComesBack) {
  for (std::uint32_t i = 0; i < 0x10000; ++i) {
    const auto half = static_cast<std::uint16_t>(i);
    for (const DType dtype : {DType::kF16, DType::kBF16}) {
      const float value = back(dtype, half);
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(back(dtype, word(dtype, value))));
      } else {
        ASSERT_EQ(word(dtype, value), half) << i;
      }
    }
  }
}

TEST(ConvertDType, WhatFloat16CannotHoldIsAnErrorThatNamesTheTensor) {
  const float large = 65520.0f;
  try {
    from_floats(DType::kF16, std::span(&large, 1), "up.weight");
    FAIL();
  } catch (const Failure& failure) {
    EXPECT_NE(std::string(failure.what()).find("'up.weight'"), std::string::npos) << failure.what();
    EXPECT_NE(std::string(failure.what()).find("65504"), std::string::npos);
  }
  EXPECT_NO_THROW(from_floats(DType::kBF16, std::span(&large, 1), "up.weight"));
}

}  // namespace
}  // namespace limner::engine::weights
