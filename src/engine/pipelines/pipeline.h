// Pipeline: how one family prepares its prompt and latents and calls its networks.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "contract/prompt_options.h"
#include "contract/validate.h"
#include "engine/models/autoencoder_kl.h"
#include "engine/nn/row_adapters.h"
#include "engine/nn/tensor_source.h"
#include "engine/weights/model_folder.h"

namespace limner::engine::pipelines {

// Differences between families that are data.
struct Traits {
  std::string family;
  std::int64_t latent_channels = 4;
  std::int64_t spatial_factor = 8;   // pixels per latent
  std::int64_t default_side = 1024;  // native picture side in pixels
  std::int64_t default_steps = 30;
  double default_guidance_scale = 5.0;
  std::int64_t clip_layers = 12;    // of the first text encoder
  bool micro_conditioning = false;  // told the original size, crop and target size
};

// One encoded text: plain tensors on the device, each with a first axis of 1.
struct Conditioning {
  at::Tensor prompt_embeds;         // [1, L, C]
  at::Tensor pooled_prompt_embeds;  // [1, P] or undefined
};

// From the step after the one before (the first: from step 1) up to and with this one, counted from
// 1 in calls of the model. The last one reaches to the end.
struct ConditioningSpan {
  std::int64_t until_step = 0;
  std::shared_ptr<const Conditioning> conditioning;
};
using ConditioningSchedule = std::vector<ConditioningSpan>;

// One side of an AND, and its share of the guidance.
struct WeightedConditioning {
  double weight = 1.0;
  ConditioningSchedule schedule;
};

// An encoded prompt. All its tensors have one L.
struct EncodedPrompt {
  std::vector<WeightedConditioning> conjuncts;  // one or more
  ConditioningSchedule negative;
  std::vector<std::string> warnings;  // what was cut
};

struct PromptText {
  std::string positive;
  std::string negative;
  std::int64_t clip_skip = 0;
  contract::PromptOptions options;
  std::int64_t steps = 1;  // calls of the model, which schedules in the text are spread over
  std::string adapters{};  // what changes the text encoders, as a key: equal texts encode alike
  bool operator==(const PromptText&) const = default;
};

// What the forwards of encode_prompt add. Each of them has one row, row 0, whatever the length of
// the prompt. Two references, because layers of both encoders have the same names.
struct TextAdapters {
  const nn::RowAdapters& text_encoder = nn::no_adapters();
  const nn::RowAdapters& text_encoder_2 = nn::no_adapters();
};

// Rows of one forward; every tensor's first axis is the row.
struct DenoiseBatch {
  at::Tensor sample;         // [R, C, h, w] float32
  at::Tensor timesteps;      // [R] float32
  at::Tensor prompt_embeds;  // [R, L, C]
  at::Tensor pooled_embeds;  // [R, P] or undefined
  at::Tensor time_ids;       // [R, 6] or undefined
  at::Tensor guidance;  // [R] guidance scale for distilled networks that embed it, or undefined
};

// Immutable after loading; every function is const. Throws Failure.
class Pipeline {
 public:
  virtual ~Pipeline() = default;

  virtual const Traits& traits() const = 0;
  // True when guidance is an input of the network instead of a second row (LCM-distilled
  // checkpoints).
  virtual bool embeds_guidance() const { return false; }

  virtual EncodedPrompt encode_prompt(const PromptText& text,
                                      const TextAdapters& adapters) const = 0;
  // What the network is told besides the prompt; undefined where the family has none. [1, 6]
  virtual at::Tensor time_ids(const contract::ValidRequest& request) const = 0;
  // [R, C, h, w] float32
  virtual at::Tensor predict_noise(const DenoiseBatch& batch,
                                   const nn::RowAdapters& adapters) const = 0;
  // latents [B, C, h, w] as the sampler left them -> [B, 3, H, W] float32, about -1..1. `tiled`: in
  // overlapping tiles even where the options did not ask for it.
  virtual at::Tensor decode(const at::Tensor& latents, bool tiled) const = 0;

  // Bytes of activations: one forward of `rows` rows, and decoding one picture, for latents of h x
  // w.
  virtual std::uint64_t denoise_bytes(std::int64_t rows, std::int64_t h, std::int64_t w) const = 0;
  virtual std::uint64_t decode_bytes(std::int64_t h, std::int64_t w, bool tiled) const = 0;
};

struct LoadRequest {
  weights::ModelFolder folder;
  std::string variant;
  nn::Placement placement;
  bool offload = false;  // a network is on the device only while it is used
  models::AutoencoderOptions vae;
  std::vector<std::filesystem::path> embeddings{};  // folders of textual-inversion files
};

}  // namespace limner::engine::pipelines
