// Fused attention on AVX-512: scores, softmax and weighted sum per block, never the whole score
// matrix.
//
// The online softmax is that of "FlashAttention" (Dao et al. 2022, algorithm 1). Plain pointers
// only: the sources are compiled with AVX-512 flags and must not instantiate shared templates.
#pragma once

#include <cstdint>

namespace limner::engine::kernels::avx512 {

// Rows of heads * width contiguous elements; strides in elements.
struct AttentionOperand {
  const void* data = nullptr;
  int64_t batch_stride = 0, row_stride = 0;
};

struct Attention {
  int64_t heads = 0, queries = 0, keys = 0, width = 0;  // of one head; width <= kMaxHeadWidth
  AttentionOperand q, k, v;
  void* out = nullptr;  // [batch, queries, heads * width], contiguous
  float scale = 1.0f;   // positive
  bool causal = false;  // query i sees keys 0..i
};

constexpr int64_t kMaxHeadWidth = 512;
constexpr int64_t kQueryBlock = 112;

// One kernel per element type. A head is numbered batch * heads + head. First pack_head fills
// packed_bytes of 64-byte aligned memory from one head's keys and values; then attend computes the
// kQueryBlock output rows that start at `query`, with scratch_bytes of 64-byte aligned scratch of
// its own.
struct AttentionKernel {
  int64_t (*packed_bytes)(const Attention&);
  int64_t (*scratch_bytes)();
  void (*pack_head)(const Attention&, int64_t head, void* packed);
  void (*attend)(const Attention&, int64_t head, int64_t query, const void* packed, void* scratch);
};

const AttentionKernel& attention_float32();
// Products of bfloat16 pairs summed in float32, weights rounded to bfloat16; needs AVX512_BF16.
const AttentionKernel& attention_bfloat16();
// The same loops and packing with the pair product written out: for tests on processors without
// AVX512_BF16.
const AttentionKernel& attention_bfloat16_emulated();

}  // namespace limner::engine::kernels::avx512
