// What SD 1.x, SD 2.x and SDXL share: one UNet, one VAE, and how latents become pixels.
#pragma once

#include "engine/models/autoencoder_kl.h"
#include "engine/models/unet_2d_condition_model.h"
#include "engine/pipelines/pipeline.h"
#include "engine/pipelines/resident.h"

namespace limner::engine::pipelines {

// What the configs of <folder>/unet and <folder>/vae say. Throws Failure: kInvalidModel, and
// kUnsupported where the two do not fit for drawing from a prompt alone.
struct LatentTraits {
  models::UNet2DConditionModel::Traits unet;
  models::AutoencoderKL::Traits vae;
};
LatentTraits latent_traits(const weights::ModelFolder& folder);

// Owned by a pipeline. Where the request offloads, at most one of both networks is on the device.
class LatentDiffusion {
 public:
  // Loads <folder>/unet and <folder>/vae. Throws Failure.
  explicit LatentDiffusion(const LoadRequest& request);

  const models::UNet2DConditionModel::Traits& unet() const { return unet_traits_; }
  struct VaeTraits {
    std::int64_t latent_channels = 4;
    std::int64_t spatial_factor = 8;
    std::int64_t tile_sample_size = 512;    // side in pixels of a tile when tiling
    std::int64_t full_size_channels = 128;  // widest activation of the decoder at full picture size
  };
  const VaeTraits& vae() const { return vae_traits_; }

  at::Tensor predict_noise(const DenoiseBatch& batch, const nn::RowAdapters& adapters) const;
  at::Tensor decode(const at::Tensor& latents, bool tiled) const;
  std::uint64_t denoise_bytes(std::int64_t rows, std::int64_t h, std::int64_t w) const;
  std::uint64_t decode_bytes(std::int64_t h, std::int64_t w, bool tiled) const;

 private:
  nn::Placement unet_placement_;
  nn::Placement vae_placement_;
  models::AutoencoderOptions vae_options_;
  Resident<models::UNet2DConditionModel> unet_;
  models::UNet2DConditionModel::Traits unet_traits_;
  Resident<models::AutoencoderKL> vae_;
  VaeTraits vae_traits_;
};

}  // namespace limner::engine::pipelines
