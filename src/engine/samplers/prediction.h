// What a model's output says about the clean picture.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/samplers/settings.h"

namespace limner::engine::samplers {

// With sample = clean + sigma * noise (the "variance exploding" samplers: euler, heun, lms, kdpm2).
// Never kFlow.
at::Tensor clean_of_exploding(Prediction prediction, const at::Tensor& model_output,
                              const at::Tensor& sample, double sigma);

// With sample = alpha * clean + sigma * noise.
at::Tensor clean_of_preserving(Prediction prediction, const at::Tensor& model_output,
                               const at::Tensor& sample, double alpha, double sigma);

// The noise in that sample. Never kFlow.
at::Tensor noise_of_preserving(Prediction prediction, const at::Tensor& model_output,
                               const at::Tensor& sample, double alpha, double sigma);

// Dynamic thresholding (Saharia et al., Imagen) or clipping, as the settings say; else unchanged.
at::Tensor limit_clean(const Settings& settings, const at::Tensor& clean);

// Dynamic thresholding alone.
at::Tensor threshold_clean(const Settings& settings, const at::Tensor& clean);

}  // namespace limner::engine::samplers
