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
  at::Tensor class_labels;   // [B] (table, timestep) or [B, n] (the others), with class embedding
  at::Tensor timestep_cond;  // [B, time_cond_proj_dim], for networks that embed the guidance scale
};

// Immutable; forward is const and thread-safe.
class UNet2DConditionModel {
 public:
  // Takes every tensor of `source` and reads every key of `config`. Throws Failure(kInvalidModel).
  UNet2DConditionModel(const weights::Config& config, const nn::TensorSource& source);
  UNet2DConditionModel(UNet2DConditionModel&&) noexcept;
  ~UNet2DConditionModel();

  // [B, out_channels, h, w] in float32, contiguous. Call it without gradients. Throws
  // Failure(kInvalidModel) when an input does not have the shape the config asks for,
  // Failure(kInvalidArgument) for a class label out of range.
  at::Tensor forward(const UNetInput& input,
                     const nn::RowAdapters& adapters = nn::no_adapters()) const;

  struct Traits {
    int64_t in_channels = 4;
    int64_t out_channels = 4;
    int64_t sample_size = 64;  // native latent side
    int64_t cross_attention_dim = 768;
    std::string addition_embed_type;  // "" or "text_time"
    int64_t addition_time_embed_dim = 0;
    int64_t projection_class_embeddings_input_dim = 0;
    int64_t time_cond_proj_dim = 0;  // width of timestep_cond; 0: there is none
    int64_t base_channels = 320;     // block_out_channels[0]
    int64_t num_class_embeds = 0;    // labels of the class table; 0: there is none
    std::string class_embed_type;  // "", "timestep", "identity", "projection", "simple_projection"
    int64_t downsampling = 8;      // latent sides need not be multiples; odd sizes follow diffusers
  };
  const Traits& traits() const;
  // The same from the config alone. Throws Failure(kInvalidModel).
  static Traits traits_of(const weights::Config& config);

 private:
  struct Network;
  std::unique_ptr<const Network> network_;
};

}  // namespace limner::engine::models
