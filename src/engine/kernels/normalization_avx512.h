// Group normalisation of channels-last rows, and the GEGLU gate, on AVX-512.
//
// Plain pointers only: the source is compiled with AVX-512 flags and must not instantiate shared
// templates.
#pragma once

#include <cstdint>

namespace limner::engine::kernels::avx512 {

enum class Element { kFloat32, kBfloat16 };

// x and out [batch][pixels][channels], dense.
struct GroupNorm {
  int64_t batch = 0, pixels = 0, channels = 0, groups = 0;
  Element element = Element::kFloat32;
  const void* x = nullptr;
  void* out = nullptr;
  bool silu = false;
};

// Work is cut into chunks of this many pixels whatever the number of threads, so that sums are
// always formed in one order.
constexpr int64_t kNormChunk = 128;

struct Moments {
  double sum = 0.0, squares = 0.0;
};

// Adds up the numbers of pixels [begin, end) of one picture into moments[groups]. `scratch` holds 3
// * channels floats.
void group_moments(const GroupNorm& norm, int64_t picture, int64_t begin, int64_t end,
                   float* scratch, Moments* moments);

// out = x * gain[channel] + shift[channel], then x * sigmoid(x) when norm.silu, for pixels [begin,
// end).
void scale_and_shift(const GroupNorm& norm, int64_t picture, int64_t begin, int64_t end,
                     const float* gain, const float* shift);

// out[row][i] = x[row][i] * gelu(x[row][width + i]) for rows [begin, end); x has 2 * width columns.
// The error function is Abramowitz and Stegun's 7.1.26, absolute error below 2e-7.
struct Geglu {
  int64_t width = 0;
  Element element = Element::kFloat32;
  const void* x = nullptr;
  void* out = nullptr;
};
void geglu_rows(const Geglu& gate, int64_t begin, int64_t end);

}  // namespace limner::engine::kernels::avx512
