// What a Picture is made of.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/lora/attach.h"
#include "engine/pipelines/pipeline.h"
#include "engine/samplers/noise.h"
#include "engine/samplers/sampler.h"

namespace limner::engine::pipelines {

// Every step's tensors of one picture, each [1, C, h, w] float32; kept only when asked for.
struct Trace {
  at::Tensor initial;                  // after scaling by the first sigma
  std::vector<at::Tensor> noise_pred;  // the guided model output of each call
  std::vector<at::Tensor> latents;     // after each call
  at::Tensor image;                    // [1, 3, H, W] before rounding
};

// Everything that changes while one image is drawn, and what it was asked for. Owned by one thread
// at a time.
struct PictureState {
  std::uint64_t seed = 0;
  double guidance_scale = 1.0;
  double guidance_rescale = 0.0;
  std::shared_ptr<const EncodedPrompt> prompt;
  at::Tensor time_ids;  // [1, 6] or undefined
  lora::AdapterList adapters;
  samplers::Noise noise{0};
  std::unique_ptr<samplers::Sampler> sampler;
  at::Tensor latents;         // [1, C, h, w] float32
  bool tiled_decode = false;  // decoding the picture as a whole would not fit
  std::optional<Trace> trace;
};

}  // namespace limner::engine::pipelines
