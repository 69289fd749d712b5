#include "image/resize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace limner::image {
namespace {

constexpr double kLobes = 3.0;
constexpr int kPrecision = 22;  // bits behind the point
constexpr std::int64_t kLongestSide = 65535;

double lanczos(double x) {
  const auto sinc = [](double t) {
    return t == 0.0 ? 1.0 : std::sin(t * std::numbers::pi) / (t * std::numbers::pi);
  };
  return x > -kLobes && x < kLobes ? sinc(x) * sinc(x / kLobes) : 0.0;
}

// The weights of one output position: input positions first, first + 1, ...
struct Taps {
  std::int64_t first = 0;
  std::vector<std::int32_t> weights;
};

std::vector<Taps> taps_for(std::int64_t from, std::int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double widening = std::max(scale, 1.0);
  const double support = kLobes * widening;
  std::vector<Taps> all(static_cast<std::size_t>(to));
  std::vector<double> weights;
  for (std::int64_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto last =
        std::min<std::int64_t>(static_cast<std::int64_t>(center + support + 0.5), from);
    weights.clear();
    double sum = 0.0;
    for (std::int64_t k = first; k < last; ++k) {
      weights.push_back(lanczos((static_cast<double>(k) - center + 0.5) * (1.0 / widening)));
      sum += weights.back();
    }
    Taps& taps = all[static_cast<std::size_t>(i)];
    taps.first = first;
    for (const double weight : weights) {
      const double fixed = weight * (1.0 / sum) * (1 << kPrecision);
      taps.weights.push_back(static_cast<std::int32_t>(fixed + (fixed < 0.0 ? -0.5 : 0.5)));
    }
  }
  return all;
}

std::uint8_t weighed(const Taps& taps, const std::uint8_t* at, std::size_t stride) {
  std::int32_t sum = 1 << (kPrecision - 1);
  for (const std::int32_t weight : taps.weights) {
    sum += weight * *at;
    at += stride;
  }
  return static_cast<std::uint8_t>(std::clamp(sum >> kPrecision, 0, 255));
}

Bitmap resize_rows(const Bitmap& bitmap, std::int64_t width) {
  const auto taps = taps_for(bitmap.width, width);
  Bitmap out{width, bitmap.height, {}};
  out.pixels.reserve(static_cast<std::size_t>(width * bitmap.height * 3));
  for (std::int64_t y = 0; y < bitmap.height; ++y) {
    const std::uint8_t* row = bitmap.pixels.data() + y * bitmap.width * 3;
    for (const Taps& tap : taps) {
      for (int c = 0; c < 3; ++c) out.pixels.push_back(weighed(tap, row + tap.first * 3 + c, 3));
    }
  }
  return out;
}

Bitmap resize_columns(const Bitmap& bitmap, std::int64_t height) {
  const auto taps = taps_for(bitmap.height, height);
  const auto stride = static_cast<std::size_t>(bitmap.width * 3);
  Bitmap out{bitmap.width, height, {}};
  out.pixels.reserve(stride * static_cast<std::size_t>(height));
  for (const Taps& tap : taps) {
    const std::uint8_t* top = bitmap.pixels.data() + static_cast<std::size_t>(tap.first) * stride;
    for (std::size_t x = 0; x < stride; ++x) out.pixels.push_back(weighed(tap, top + x, stride));
  }
  return out;
}

}  // namespace

Result<Bitmap> resize(const Bitmap& bitmap, std::int64_t width, std::int64_t height) {
  const auto side = [](std::int64_t n) { return n >= 1 && n <= kLongestSide; };
  if (!side(bitmap.width) || !side(bitmap.height) || !side(width) || !side(height)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[image.resize] want sides of 1 to {} pixels, got {}x{} to {}x{}",
                             kLongestSide, bitmap.width, bitmap.height, width, height)};
  }
  if (bitmap.pixels.size() != static_cast<std::size_t>(bitmap.width * bitmap.height * 3)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[image.resize] want {}x{} pixels of 3 bytes, got {} bytes",
                             bitmap.width, bitmap.height, bitmap.pixels.size())};
  }
  if (width == bitmap.width && height == bitmap.height) return bitmap;
  if (width == bitmap.width) return resize_columns(bitmap, height);
  Bitmap rows = resize_rows(bitmap, width);
  if (height == rows.height) return rows;
  return resize_columns(rows, height);
}

}  // namespace limner::image
