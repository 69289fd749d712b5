#include "engine/samplers/noise.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace limner::engine::samplers {

Noise::Noise(std::uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

at::Tensor Noise::normal(at::IntArrayRef shape) {
  return at::randn(shape, generator_, at::TensorOptions(at::kFloat));
}

at::Tensor Noise::state() const {
  return generator_.get_state();
}

void Noise::restore(const at::Tensor& state) {
  generator_.set_state(state);
}

}  // namespace limner::engine::samplers
