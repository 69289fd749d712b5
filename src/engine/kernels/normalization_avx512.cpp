#include "engine/kernels/normalization_avx512.h"

#include "engine/kernels/vector_avx512.h"

namespace limner::engine::kernels::avx512 {
namespace {

struct Float32Rows : LoadFloat32 {
  static void store(float* p, __mmask16 mask, __m512 y) { _mm512_mask_storeu_ps(p, mask, y); }
};

struct Bfloat16Rows : LoadBfloat16 {
  static void store(uint16_t* p, __mmask16 mask, __m512 y) {
    _mm256_mask_storeu_epi16(p, mask, round_to_bfloat16(y));
  }
};

// Sums of x - origin and of its square over some pixels, for kVectors * 16 channels. Taking a value
// of the channel itself as the origin keeps the squares exact where the mean is far larger than the
// spread.
template <typename Rows, int kVectors>
void channel_sums(const typename Rows::Element* x, int64_t channels, int64_t pixels, __mmask16 last,
                  const float* origin, float* sums, float* squares) {
  __m512 o[kVectors], s[kVectors], q[kVectors];
  const auto mask_of = [&](int v) {
    return v == kVectors - 1 ? last : static_cast<__mmask16>(0xffff);
  };
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    o[v] = _mm512_maskz_loadu_ps(mask_of(v), origin + 16 * v);
    s[v] = q[v] = _mm512_setzero_ps();
  }
  for (int64_t pixel = 0; pixel < pixels; ++pixel, x += channels) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __m512 d = _mm512_sub_ps(Rows::load(x + 16 * v, mask_of(v)), o[v]);
      s[v] = _mm512_add_ps(s[v], d);
      q[v] = _mm512_fmadd_ps(d, d, q[v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    _mm512_mask_storeu_ps(sums + 16 * v, mask_of(v), s[v]);
    _mm512_mask_storeu_ps(squares + 16 * v, mask_of(v), q[v]);
  }
}

template <typename Rows>
void moments_of(const GroupNorm& norm, int64_t picture, int64_t begin, int64_t end, float* scratch,
                Moments* moments) {
  const int64_t channels = norm.channels;
  const auto* x = static_cast<const typename Rows::Element*>(norm.x) +
                  (picture * norm.pixels + begin) * channels;
  float *origin = scratch, *sums = scratch + channels, *squares = scratch + 2 * channels;
  for (int64_t c = 0; c < channels; c += 16) {
    const __mmask16 mask = tail_mask(channels - c);
    _mm512_mask_storeu_ps(origin + c, mask, Rows::load(x + c, mask));
  }
  int64_t c = 0;
  for (; c + 64 <= channels; c += 64) {
    channel_sums<Rows, 4>(x + c, channels, end - begin, 0xffff, origin + c, sums + c, squares + c);
  }
  for (; c < channels; c += 16) {
    channel_sums<Rows, 1>(x + c, channels, end - begin, tail_mask(channels - c), origin + c,
                          sums + c, squares + c);
  }
  const int64_t width = channels / norm.groups;
  const auto count = static_cast<double>(end - begin);
  for (int64_t group = 0; group < norm.groups; ++group) {
    Moments total;
    for (c = group * width; c < (group + 1) * width; ++c) {
      const double o = origin[c], s = sums[c], q = squares[c];
      total.sum += s + count * o;
      total.squares += q + 2.0 * o * s + count * o * o;
    }
    moments[group] = total;
  }
}

__m512 silu(__m512 x) {
  const __m512 e = exp2_clamped(_mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f)));
  return _mm512_mul_ps(x, reciprocal(_mm512_add_ps(e, _mm512_set1_ps(1.0f))));
}

template <typename Rows, bool kSilu>
void apply(const GroupNorm& norm, int64_t picture, int64_t begin, int64_t end, const float* gain,
           const float* shift) {
  const int64_t offset = (picture * norm.pixels + begin) * norm.channels;
  const auto* x = static_cast<const typename Rows::Element*>(norm.x) + offset;
  auto* out = static_cast<typename Rows::Element*>(norm.out) + offset;
  for (int64_t pixel = begin; pixel < end; ++pixel, x += norm.channels, out += norm.channels) {
    for (int64_t c = 0; c < norm.channels; c += 16) {
      const __mmask16 mask = tail_mask(norm.channels - c);
      __m512 y = _mm512_fmadd_ps(Rows::load(x + c, mask), _mm512_maskz_loadu_ps(mask, gain + c),
                                 _mm512_maskz_loadu_ps(mask, shift + c));
      if constexpr (kSilu) y = silu(y);
      Rows::store(out + c, mask, y);
    }
  }
}

template <typename Rows>
void apply_any(const GroupNorm& norm, int64_t picture, int64_t begin, int64_t end,
               const float* gain, const float* shift) {
  if (norm.silu) {
    apply<Rows, true>(norm, picture, begin, end, gain, shift);
  } else {
    apply<Rows, false>(norm, picture, begin, end, gain, shift);
  }
}

// x * Phi(x). With t = 1 / (1 + p |z|), z = x / sqrt(2): erf |z| = 1 - (a1 t + ... + a5 t^5)
// exp(-z^2). The factor of a negative x is the small tail itself, not one minus something near one.
__m512 gelu(__m512 x) {
  const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
  const __m512 t = reciprocal(_mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), _mm512_set1_ps(1.0f)));
  __m512 p = _mm512_set1_ps(1.061405429f);
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
  const __m512 square = _mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-1.44269504f));
  const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(p, t), exp2_nonpositive(square));
  const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
  const __m512 twice =
      _mm512_mask_sub_ps(tail, static_cast<__mmask16>(~negative), _mm512_set1_ps(2.0f), tail);
  return _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.5f)), twice);
}

template <typename Rows>
void gate_rows(const Geglu& gate, int64_t begin, int64_t end) {
  const auto* x = static_cast<const typename Rows::Element*>(gate.x) + 2 * begin * gate.width;
  auto* out = static_cast<typename Rows::Element*>(gate.out) + begin * gate.width;
  for (int64_t row = begin; row < end; ++row, x += 2 * gate.width, out += gate.width) {
    for (int64_t i = 0; i < gate.width; i += 16) {
      const __mmask16 mask = tail_mask(gate.width - i);
      const __m512 value = Rows::load(x + i, mask);
      Rows::store(out + i, mask, _mm512_mul_ps(value, gelu(Rows::load(x + gate.width + i, mask))));
    }
  }
}

}  // namespace

void group_moments(const GroupNorm& norm, int64_t picture, int64_t begin, int64_t end,
                   float* scratch, Moments* moments) {
  if (norm.element == Element::kFloat32) {
    moments_of<Float32Rows>(norm, picture, begin, end, scratch, moments);
  } else {
    moments_of<Bfloat16Rows>(norm, picture, begin, end, scratch, moments);
  }
}

void scale_and_shift(const GroupNorm& norm, int64_t picture, int64_t begin, int64_t end,
                     const float* gain, const float* shift) {
  if (norm.element == Element::kFloat32) {
    apply_any<Float32Rows>(norm, picture, begin, end, gain, shift);
  } else {
    apply_any<Bfloat16Rows>(norm, picture, begin, end, gain, shift);
  }
}

void geglu_rows(const Geglu& gate, int64_t begin, int64_t end) {
  if (gate.element == Element::kFloat32) {
    gate_rows<Float32Rows>(gate, begin, end);
  } else {
    gate_rows<Bfloat16Rows>(gate, begin, end);
  }
}

}  // namespace limner::engine::kernels::avx512
