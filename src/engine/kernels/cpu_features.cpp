#include "engine/kernels/cpu_features.h"

#include <cpuid.h>

namespace limner::engine::kernels {
namespace {

CpuFeatures detect() {
  CpuFeatures features;
  __builtin_cpu_init();
  features.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  features.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (!features.avx512)
    return features;  // the leaves below need the operating system to save the registers
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    features.avx512_fp16 = (d >> 23) & 1;
    features.amx_bf16 = (d >> 22) & 1;
  }
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) features.avx512_bf16 = (a >> 5) & 1;
  return features;
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

bool has_fast_bfloat16() {
  return cpu_features().avx512_bf16 || cpu_features().amx_bf16;
}

}  // namespace limner::engine::kernels
