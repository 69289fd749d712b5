#include "engine/samplers/sampler.h"

#include <ATen/ATen.h>

#include "base/check.h"

namespace limner::engine::samplers {

at::Tensor Sampler::step(const at::Tensor& model_output, const at::Tensor& sample, Noise& noise) {
  LIMNER_CHECK(!done(), "step after the last timestep");
  LIMNER_CHECK(model_output.sizes() == sample.sizes(), "model output and sample differ in shape");
  at::Tensor next = advance(model_output, sample, noise);
  ++history_.position;
  return next;
}

}  // namespace limner::engine::samplers
