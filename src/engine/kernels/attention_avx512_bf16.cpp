#include "engine/kernels/attention_avx512.h"
#include "engine/kernels/attention_block_avx512.h"

namespace limner::engine::kernels::avx512 {
namespace {

struct Bfloat16Dot : Bfloat16Lanes {
  static __m512 dot(__m512 sum, __m512 a, __m512 b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static __m256i round(__m512 x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }
  static void store_weights(float* row, int64_t key, __m512 weight) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(row + key / 2), round(weight));
  }
  static void store_output(uint16_t* out, int64_t count, __m512 y) {
    _mm256_mask_storeu_epi16(out, tail_mask(count), round(y));
  }
};

}  // namespace

const AttentionKernel& attention_bfloat16() {
  return kKernel<Bfloat16Dot>;
}

}  // namespace limner::engine::kernels::avx512
