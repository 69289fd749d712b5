#include "engine/kernels/attention_avx512.h"

#include "engine/kernels/attention_block_avx512.h"

namespace limner::engine::kernels::avx512 {
namespace {

struct Float32Dot {
  using Element = float;
  static constexpr int64_t kPair = 1;

  static __m512 dot(__m512 sum, __m512 a, __m512 b) { return _mm512_fmadd_ps(a, b, sum); }
  static __m512 load(const float* p, int64_t count) {
    return _mm512_maskz_loadu_ps(tail_mask(count), p);
  }
  static __m512 pair(const float* first, const float*, int64_t count) { return load(first, count); }
  static void store_weights(float* row, int64_t key, __m512 weight) {
    _mm512_store_ps(row + key, weight);
  }
  static void store_output(float* out, int64_t count, __m512 y) {
    _mm512_mask_storeu_ps(out, tail_mask(count), y);
  }
};

struct EmulatedBfloat16Dot : Bfloat16Lanes {
  // Of each lane first the low pair member, then the high one.
  static __m512 dot(__m512 sum, __m512 a, __m512 b) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    const __m512i x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);
    sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
                          _mm512_castsi512_ps(_mm512_slli_epi32(y, 16)), sum);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(x, high)),
                           _mm512_castsi512_ps(_mm512_and_si512(y, high)), sum);
  }
  static void store_weights(float* row, int64_t key, __m512 weight) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(row + key / 2), round_to_bfloat16(weight));
  }
  static void store_output(uint16_t* out, int64_t count, __m512 y) {
    _mm256_mask_storeu_epi16(out, tail_mask(count), round_to_bfloat16(y));
  }
};

}  // namespace

const AttentionKernel& attention_float32() {
  return kKernel<Float32Dot>;
}
const AttentionKernel& attention_bfloat16_emulated() {
  return kKernel<EmulatedBfloat16Dot>;
}

}  // namespace limner::engine::kernels::avx512
