#include <ATen/core/Tensor.h>

#include "engine/kernels/cuda.h"

namespace limner::engine::kernels {

std::optional<at::Tensor> group_norm_cuda(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                          const GroupNormOptions&) {
  return std::nullopt;
}

std::optional<at::Tensor> geglu_cuda(const at::Tensor&) {
  return std::nullopt;
}

}  // namespace limner::engine::kernels
