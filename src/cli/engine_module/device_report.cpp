#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/version.h>

#include <nlohmann/json.hpp>

#include "cli/engine_module/commands.h"
#include "engine/kernels/cpu_features.h"
#include "engine/pipelines/registry.h"
#include "engine/samplers/registry.h"

namespace limner::cli {

std::string device_report() {
  const engine::kernels::CpuFeatures& cpu = engine::kernels::cpu_features();
  nlohmann::json report = {{"libtorch", TORCH_VERSION},
                           {"threads", at::get_num_threads()},
                           {"cpu",
                            {{"capability", at::get_cpu_capability()},
                             {"avx2", cpu.avx2},
                             {"avx512", cpu.avx512},
                             {"avx512_bf16", cpu.avx512_bf16},
                             {"amx_bf16", cpu.amx_bf16},
                             {"avx512_fp16", cpu.avx512_fp16}}},
                           {"fast_bfloat16", engine::kernels::has_fast_bfloat16()},
                           {"cuda", {{"available", at::globalContext().hasCUDA()}}}};
  if (at::globalContext().hasCUDA()) {
    report["cuda"]["devices"] = static_cast<int>(at::detail::getCUDAHooks().deviceCount());
  }
  for (const auto& sampler : engine::samplers::all_samplers())
    report["samplers"].push_back(sampler.name);
  for (const auto& family : engine::pipelines::all_families())
    report["pipelines"].push_back(family.pipeline_class);
  return report.dump();
}

}  // namespace limner::cli
