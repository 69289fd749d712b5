// Noise: one torch CPU generator per picture, so that a picture depends on its seed alone.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace limner::engine::samplers {

// Owned by one Picture; not thread-safe. Draws exactly what `torch.randn(shape,
// generator=torch.Generator("cpu") .manual_seed(seed))` draws, in the same order.
class Noise {
 public:
  explicit Noise(std::uint64_t seed);
  at::Tensor normal(at::IntArrayRef shape);  // float32, on the CPU

  at::Tensor state() const;  // the generator's bytes (uint8)
  void restore(const at::Tensor& state);

 private:
  at::Generator generator_;
};

}  // namespace limner::engine::samplers
