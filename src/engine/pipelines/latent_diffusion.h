// What SD 1.x, SD 2.x and SDXL share: one UNet, one VAE, and how latents become pixels.
#pragma once

#include "engine/models/autoencoder_kl.h"
#include "engine/models/unet_2d_condition_model.h"
#include "engine/pipelines/pipeline.h"

namespace limner::engine::pipelines {

// Immutable. Owned by a pipeline.
class LatentDiffusion {
 public:
  // Loads <folder>/unet and <folder>/vae. Throws Failure.
  explicit LatentDiffusion(const LoadRequest& request);

  const models::UNet2DConditionModel& unet() const { return unet_; }
  const models::AutoencoderKL& vae() const { return vae_; }

  at::Tensor predict_noise(const DenoiseBatch& batch, const nn::RowAdapters& adapters) const;
  at::Tensor decode(const at::Tensor& latents) const;
  std::uint64_t denoise_bytes(std::int64_t rows, std::int64_t h, std::int64_t w) const;
  std::uint64_t decode_bytes(std::int64_t h, std::int64_t w) const;

 private:
  nn::Placement unet_placement_;
  nn::Placement vae_placement_;
  models::AutoencoderOptions vae_options_;
  models::UNet2DConditionModel unet_;
  models::AutoencoderKL vae_;
};

}  // namespace limner::engine::pipelines
