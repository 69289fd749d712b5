#include "engine/kernels/conv2d.h"

#include <ATen/ATen.h>

namespace limner::engine::kernels {

at::Tensor conv2d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const Conv2dOptions& options) {
  return at::conv2d(x, weight.to(x.scalar_type()),
                    bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt,
                    {options.stride, options.stride}, {options.padding, options.padding});
}

}  // namespace limner::engine::kernels
