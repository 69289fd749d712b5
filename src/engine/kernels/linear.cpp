#include "engine/kernels/linear.h"

#include <ATen/ATen.h>

namespace limner::engine::kernels {

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::linear(x, weight.to(x.scalar_type()),
                    bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt);
}

}  // namespace limner::engine::kernels
