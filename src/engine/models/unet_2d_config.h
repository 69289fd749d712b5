// The fields of a UNet2DConditionModel's config.json, checked and written out per block. Names are
// the JSON names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/weights/config.h"

namespace limner::engine::models {

// One level of the UNet: down block i, and the up block that mirrors it.
struct UNetLevel {
  int64_t channels = 0;
  int64_t heads = 1;
  int64_t layers = 2;  // resnets of the down block; the up block has one more
  bool down_cross_attention = true;
  bool up_cross_attention = true;
  bool only_cross_attention = false;
  std::vector<int64_t> down_depth;  // transformer blocks behind each resnet of the down block
  std::vector<int64_t> up_depth;    // the same for the up block
};

enum class MidBlock : std::uint8_t {
  kCrossAttention,  // UNetMidBlock2DCrossAttn
  kResnet,          // UNetMidBlock2D: one resnet
  kUnsaid,  // null or absent: diffusers writes null for "none", old checkpoints leave the key out
};

struct UNetConfig {
  int64_t sample_size = 64;
  int64_t in_channels = 4;
  int64_t out_channels = 4;
  bool center_input_sample = false;
  std::vector<UNetLevel> levels;  // finest first
  MidBlock mid_block = MidBlock::kCrossAttention;
  int64_t mid_depth = 1;
  double mid_block_scale_factor = 1.0;
  int64_t cross_attention_dim = 1280;
  bool use_linear_projection = false;
  bool upcast_attention = false;
  int64_t downsample_padding = 1;
  int64_t conv_in_kernel = 3;
  int64_t conv_out_kernel = 3;
  std::string act_fn = "silu";
  int64_t norm_num_groups = 32;
  double norm_eps = 1e-5;
  bool scale_shift = false;  // resnet_time_scale_shift

  bool flip_sin_to_cos = true;
  double freq_shift = 0.0;
  int64_t time_embedding_dim =
      0;  // 4 x the first level's channels unless the config says otherwise
  int64_t time_cond_proj_dim = 0;  // 0: no guidance embedding

  std::string class_embed_type;  // "", "timestep", "identity", "projection", "simple_projection"
  int64_t num_class_embeds = 0;  // with class_embed_type "": rows of a table; 0: no class embedding
  std::string addition_embed_type;  // "" or "text_time"
  int64_t addition_time_embed_dim = 0;
  int64_t projection_class_embeddings_input_dim = 0;
};

// Throws Failure(kInvalidModel) for a value that makes no sense or asks for something this UNet
// does not compute.
UNetConfig read_unet_config(const weights::Config& config);

}  // namespace limner::engine::models
