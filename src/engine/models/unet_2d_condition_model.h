// UNet2DConditionModel of diffusers, for SD 1.x, SD 2.x and SDXL (base, refiner, inpaint).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>

#include "engine/nn/row_adapters.h"
#include "engine/nn/tensor_source.h"
#include "engine/weights/config.h"

namespace limner::engine::models {

struct UNetInput {
  at::Tensor sample;                 // [B, in_channels, h, w], any float dtype
  at::Tensor timesteps;              // [B] float32; rows may differ
  at::Tensor encoder_hidden_states;  // [B, L, cross_attention_dim]
  at::Tensor text_embeds;            // [B, P], with addition_embed_type "text_time"
  at::Tensor time_ids;               // [B, 6] (5 for the refiner), with "text_time"
  at::Tensor class_labels;           // [B] or [B, n], with class embedding
};

// Immutable; forward is const and thread-safe.
class UNet2DConditionModel {
 public:
  UNet2DConditionModel(const weights::Config& config, const nn::TensorSource& source);
  ~UNet2DConditionModel();

  // [B, out_channels, h, w] in float32.
  at::Tensor forward(const UNetInput& input, const nn::RowAdapters& adapters = nn::no_adapters()) const;

  struct Traits {
    int64_t in_channels = 4;
    int64_t out_channels = 4;
    int64_t sample_size = 64;              // native latent side
    int64_t cross_attention_dim = 768;
    std::string addition_embed_type;       // "" or "text_time"
    int64_t addition_time_embed_dim = 0;
    int64_t projection_class_embeddings_input_dim = 0;
    int64_t downsampling = 8;              // latent sides need not be multiples; odd sizes follow diffusers
  };
  const Traits& traits() const;

 private:
  struct Network;
  std::unique_ptr<const Network> network_;
};

}  // namespace limner::engine::models
