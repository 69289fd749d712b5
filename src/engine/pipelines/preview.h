// A cheap picture of latents: a linear map from latent channels to RGB.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/pipelines/pipeline.h"
#include "image/bitmap.h"

namespace limner::engine::pipelines {

// Fitted once per model by least squares: a patchwork of random latents is decoded and each 8x8
// block's mean colour is explained by its latent.
class PreviewMap {
 public:
  explicit PreviewMap(const Pipeline& pipeline, at::Device device);
  // latents [1, C, h, w] -> h x w pixels
  image::Bitmap draw(const at::Tensor& latents) const;

 private:
  at::Tensor map_;  // [C + 1, 3], last row the constant
};

// [1, 3, H, W] in -1..1 -> pixels: (x/2 + 0.5) clamped, times 255, rounded to nearest even, as
// diffusers does.
image::Bitmap to_bitmap(const at::Tensor& image);

}  // namespace limner::engine::pipelines
