#include "engine/pipelines/latent_diffusion.h"

#include <cmath>

#include "engine/pipelines/component.h"

namespace limner::engine::pipelines {
namespace {

// Float16 overflows inside the SDXL VAE and gives black pictures; float32 arithmetic costs little
// there.
nn::Placement without_float16_arithmetic(nn::Placement placement) {
  if (placement.compute == at::kHalf) {
    placement.storage = at::kFloat;
    placement.compute = at::kFloat;
  }
  return placement;
}

// The guidance scale as the network of a consistency-distilled checkpoint reads it ("On
// Distillation of Guided Diffusion Models", sinusoid of 1000 (w - 1)). guidance [R] -> [R, width]
at::Tensor guidance_embedding(const at::Tensor& guidance, std::int64_t width) {
  const std::int64_t half = width / 2;
  const at::Tensor frequencies =
      at::exp(at::arange(half, at::kFloat) * (-std::log(10000.0) / static_cast<double>(half - 1)));
  const at::Tensor angles = ((guidance - 1.0) * 1000.0).unsqueeze(1) * frequencies.unsqueeze(0);
  at::Tensor embedding = at::cat({at::sin(angles), at::cos(angles)}, 1);
  return width % 2 == 1 ? at::constant_pad_nd(embedding, {0, 1}) : embedding;
}

}  // namespace

LatentDiffusion::LatentDiffusion(const LoadRequest& request)
    : unet_placement_(request.placement),
      vae_placement_(without_float16_arithmetic(request.placement)),
      vae_options_(request.vae),
      unet_(build_component(request, "unet", unet_placement_,
                            [](const weights::Config& config, const nn::TensorSource& source) {
                              return models::UNet2DConditionModel(config, source);
                            })),
      vae_(build_component(request, "vae", vae_placement_,
                           [](const weights::Config& config, const nn::TensorSource& source) {
                             return models::AutoencoderKL(config, source);
                           })) {
  if (unet_.traits().in_channels != vae_.latent_channels()) {
    throw Failure(
        ErrorCode::kUnsupported,
        fmt::format(
            "{}: the unet reads {} channels and the vae makes {}; text-to-image needs them equal "
            "(9 channels: an inpainting checkpoint)",
            request.folder.root.string(), unet_.traits().in_channels, vae_.latent_channels()));
  }
}

at::Tensor LatentDiffusion::predict_noise(const DenoiseBatch& batch,
                                          const nn::RowAdapters& adapters) const {
  models::UNetInput input;
  input.sample = batch.sample;
  input.timesteps = batch.timesteps;
  input.encoder_hidden_states = batch.prompt_embeds;
  input.text_embeds = batch.pooled_embeds;
  input.time_ids = batch.time_ids;
  if (batch.guidance.defined()) {
    input.timestep_cond = guidance_embedding(batch.guidance, unet_.traits().time_cond_proj_dim)
                              .to(unet_placement_.device);
  }
  return unet_.forward(input, adapters);
}

at::Tensor LatentDiffusion::decode(const at::Tensor& latents) const {
  const auto per_channel = [&](const std::vector<double>& values) {
    return at::tensor(values, at::kFloat).view({1, -1, 1, 1}).to(latents.device());
  };
  at::Tensor z = latents / vae_.scaling_factor();
  if (vae_.latents_mean() && vae_.latents_std()) {
    z = z * per_channel(*vae_.latents_std()) + per_channel(*vae_.latents_mean());
  }
  if (vae_.shift_factor() != 0.0) z = z + vae_.shift_factor();
  return vae_.decode(z, vae_options_).to(at::kFloat);
}

// The widest moment of a UNet forward is at full latent size: the skips that wait for the way up,
// the feed-forward's two halves of 4C each, and a few copies of the activation. About 48 C per
// position, measured on SD 1.5 and SDXL.
std::uint64_t LatentDiffusion::denoise_bytes(std::int64_t rows, std::int64_t h,
                                             std::int64_t w) const {
  const std::uint64_t element = unet_placement_.compute == at::kFloat ? 4 : 2;
  return static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(h) *
         static_cast<std::uint64_t>(w) * static_cast<std::uint64_t>(unet_.traits().base_channels) *
         48 * element;
}

// At full picture size the decoder holds about four activations of its second-widest block at once;
// with tiling only one tile's worth.
std::uint64_t LatentDiffusion::decode_bytes(std::int64_t h, std::int64_t w) const {
  const std::uint64_t element = vae_placement_.compute == at::kFloat ? 4 : 2;
  const std::int64_t factor = vae_.spatial_factor();
  std::int64_t rows = h * factor, columns = w * factor;
  if (vae_options_.tiling) {
    rows = std::min(rows, vae_.tile_sample_size());
    columns = std::min(columns, vae_.tile_sample_size());
  }
  const std::uint64_t picture =
      static_cast<std::uint64_t>(h * factor) * static_cast<std::uint64_t>(w * factor) * 3 * 4;
  return static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(columns) *
             static_cast<std::uint64_t>(vae_.full_size_channels()) * 4 * element +
         2 * picture;
}

}  // namespace limner::engine::pipelines
