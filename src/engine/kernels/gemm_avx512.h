// Float32 matrix products on AVX-512 against weights stored in a smaller dtype, widened while they
// are packed.
//
// out[m][n] = sum over k of rows(m)[k] * weight[n][k], plus bias[n]. The rows are either those of a
// matrix or the patches of a channels-last picture, gathered while they are packed, so that a
// convolution is the same product. Plain pointers only: this file's source is compiled with AVX-512
// flags and must not instantiate shared templates.
#pragma once

#include <cstdint>

namespace limner::engine::kernels::avx512 {

enum class Storage { kFloat32, kBfloat16, kFloat16 };

// A convolution's geometry: input [batch, height, width, channels], output pixels [batch,
// out_height, out_width].
struct Patches {
  int64_t height = 0, width = 0, channels = 0;
  int64_t out_height = 0, out_width = 0;
  int64_t kernel_height = 0, kernel_width = 0;
  int64_t stride = 1, padding = 0;
};

struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  const float* x = nullptr;  // matrix rows, or the picture when `patches` is set
  int64_t x_stride = 0;      // elements between matrix rows
  const Patches* patches = nullptr;
  const void* weight = nullptr;  // [n][k], rows weight_stride elements apart
  int64_t weight_stride = 0;
  Storage storage = Storage::kFloat32;
  const float* bias = nullptr;  // [n] or null
  float* out = nullptr;         // rows out_stride elements apart
  int64_t out_stride = 0;
};

// How a product is cut into tasks that may run in any order on any threads. Every output is summed
// in the same order whatever the cut, so results do not depend on the number of threads.
struct GemmPlan {
  int64_t m_step = 0, n_step = 0;
  int64_t m_tasks = 0, n_tasks = 0;
  int64_t tasks() const { return m_tasks * n_tasks; }
};

GemmPlan gemm_plan(const Gemm& gemm, int64_t threads);
// Bytes of 64-byte aligned scratch that one running task needs.
int64_t gemm_scratch_bytes();
void gemm_task(const Gemm& gemm, const GemmPlan& plan, int64_t task, void* scratch);

// The same product for at most kMaxDotRows matrix rows, where reading the weights is all the work:
// no packing.
constexpr int64_t kMaxDotRows = 8;
void gemm_few_rows(const Gemm& gemm, int64_t n_begin, int64_t n_end);

}  // namespace limner::engine::kernels::avx512
