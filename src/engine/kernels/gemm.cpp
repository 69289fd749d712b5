#include "engine/kernels/gemm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "engine/kernels/cpu_features.h"
#include "engine/kernels/parallel.h"

namespace limner::engine::kernels {
namespace {

bool is_stored_float(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

}  // namespace

bool has_gemm(const at::Tensor& x, const at::Tensor& weight) {
  return cpu_features().avx512 && x.device().is_cpu() && weight.device().is_cpu() &&
         x.scalar_type() == at::kFloat && is_stored_float(weight.scalar_type()) && x.numel() > 0 &&
         weight.numel() > 0;
}

void set_weight(avx512::Gemm& gemm, const at::Tensor& weight, const at::Tensor& bias) {
  gemm.n = weight.size(0);
  gemm.k = weight.numel() / gemm.n;
  gemm.weight = weight.const_data_ptr();
  gemm.weight_stride = weight.size(0) > 1 ? weight.stride(0) : gemm.k;
  gemm.storage = weight.scalar_type() == at::kFloat      ? avx512::Storage::kFloat32
                 : weight.scalar_type() == at::kBFloat16 ? avx512::Storage::kBfloat16
                                                         : avx512::Storage::kFloat16;
  gemm.bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
}

void run_gemm(const avx512::Gemm& gemm) {
  if (gemm.m <= avx512::kMaxDotRows && gemm.patches == nullptr) {
    // Below some 100k weights a second thread costs more than it brings.
    const int64_t grain = std::max<int64_t>(16, (1 << 17) / gemm.k);
    at::parallel_for(0, gemm.n, grain,
                     [&](int64_t begin, int64_t end) { avx512::gemm_few_rows(gemm, begin, end); });
    return;
  }
  const avx512::GemmPlan plan = avx512::gemm_plan(gemm, at::get_num_threads());
  parallel_tasks(plan.tasks(), [&](int64_t task) {
    avx512::gemm_task(gemm, plan, task,
                      thread_scratch(Scratch::kTask, avx512::gemm_scratch_bytes()));
  });
}

}  // namespace limner::engine::kernels
