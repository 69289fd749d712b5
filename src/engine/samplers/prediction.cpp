#include "engine/samplers/prediction.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/check.h"

namespace limner::engine::samplers {

at::Tensor clean_of_exploding(Prediction prediction, const at::Tensor& model_output,
                              const at::Tensor& sample, double sigma) {
  switch (prediction) {
    case Prediction::kEpsilon:
      return sample - model_output * sigma;
    case Prediction::kVelocity: {
      const double square = sigma * sigma + 1.0;
      return model_output * (-sigma / std::sqrt(square)) + sample / square;
    }
    case Prediction::kSample:
      return model_output;
    case Prediction::kFlow:
      break;
  }
  LIMNER_CHECK(false, "flow prediction outside a flow sampler");
}

at::Tensor clean_of_preserving(Prediction prediction, const at::Tensor& model_output,
                               const at::Tensor& sample, double alpha, double sigma) {
  switch (prediction) {
    case Prediction::kEpsilon:
      return (sample - model_output * sigma) / alpha;
    case Prediction::kVelocity:
      return sample * alpha - model_output * sigma;
    case Prediction::kSample:
      return model_output;
    case Prediction::kFlow:
      return sample - model_output * sigma;
  }
  LIMNER_CHECK(false, "unknown prediction");
}

at::Tensor noise_of_preserving(Prediction prediction, const at::Tensor& model_output,
                               const at::Tensor& sample, double alpha, double sigma) {
  switch (prediction) {
    case Prediction::kEpsilon:
      return model_output;
    case Prediction::kVelocity:
      return model_output * alpha + sample * sigma;
    case Prediction::kSample:
      return (sample - model_output * alpha) / sigma;
    case Prediction::kFlow:
      break;
  }
  LIMNER_CHECK(false, "flow prediction has no noise form");
}

at::Tensor threshold_clean(const Settings& settings, const at::Tensor& clean) {
  const at::Tensor flat = clean.reshape({clean.size(0), -1});
  const at::Tensor bound =
      at::quantile(flat.abs(), settings.dynamic_thresholding_ratio, 1, /*keepdim=*/true)
          .clamp(1.0, settings.sample_max_value);
  return (at::min(at::max(flat, -bound), bound) / bound).reshape(clean.sizes());
}

at::Tensor limit_clean(const Settings& settings, const at::Tensor& clean) {
  if (settings.thresholding) return threshold_clean(settings, clean);
  if (settings.clip_sample) {
    return clean.clamp(-settings.clip_sample_range, settings.clip_sample_range);
  }
  return clean;
}

}  // namespace limner::engine::samplers
