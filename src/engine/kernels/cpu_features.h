// What the processor under us can do, read once from cpuid.
#pragma once

namespace limner::engine::kernels {

struct CpuFeatures {
  bool avx2 = false;
  bool avx512 = false;       // F, BW, VL, DQ
  bool avx512_bf16 = false;  // dot product of bfloat16 pairs
  bool amx_bf16 = false;     // bfloat16 tiles
  bool avx512_fp16 = false;
};

const CpuFeatures& cpu_features();

// True where matrix products in bfloat16 are faster than in float32. Elsewhere bfloat16 is a
// storage format only: weights stay in it, and the arithmetic is done in float32.
bool has_fast_bfloat16();

}  // namespace limner::engine::kernels
