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

models::UNet2DConditionModel load_unet(const LoadRequest& request, const nn::Placement& placement) {
  return build_component(request, "unet", placement,
                         [](const weights::Config& config, const nn::TensorSource& source) {
                           return models::UNet2DConditionModel(config, source);
                         });
}

models::AutoencoderKL load_vae(const LoadRequest& request, const nn::Placement& placement) {
  return build_component(request, "vae", placement,
                         [](const weights::Config& config, const nn::TensorSource& source) {
                           return models::AutoencoderKL(config, source);
                         });
}

}  // namespace

LatentTraits latent_traits(const weights::ModelFolder& folder) {
  for (const char* component : {"unet", "vae"}) require_component(folder, component);
  const LatentTraits traits{models::UNet2DConditionModel::traits_of(folder.config("unet")),
                            models::AutoencoderKL::traits_of(folder.config("vae"))};
  if (traits.unet.in_channels != traits.vae.latent_channels) {
    throw Failure(
        ErrorCode::kUnsupported,
        fmt::format(
            "{}: the unet reads {} channels and the vae makes {}; text-to-image needs them equal "
            "(9 channels: an inpainting checkpoint)",
            folder.root.string(), traits.unet.in_channels, traits.vae.latent_channels));
  }
  return traits;
}

LatentDiffusion::LatentDiffusion(const LoadRequest& request)
    : unet_placement_(request.placement),
      vae_placement_(without_float16_arithmetic(request.placement)),
      vae_options_(request.vae),
      unet_([request, placement = unet_placement_] { return load_unet(request, placement); },
            request.offload),
      unet_traits_(unet_.read([](const auto& unet) { return unet.traits(); })),
      vae_([request, placement = vae_placement_] { return load_vae(request, placement); },
           request.offload),
      vae_traits_(vae_.read([](const auto& vae) {
        return VaeTraits{.latent_channels = vae.latent_channels(),
                         .spatial_factor = vae.spatial_factor(),
                         .tile_sample_size = vae.tile_sample_size(),
                         .full_size_channels = vae.full_size_channels()};
      })) {}

at::Tensor LatentDiffusion::predict_noise(const DenoiseBatch& batch,
                                          const nn::RowAdapters& adapters) const {
  models::UNetInput input;
  input.sample = batch.sample;
  input.timesteps = batch.timesteps;
  input.encoder_hidden_states = batch.prompt_embeds;
  input.text_embeds = batch.pooled_embeds;
  input.time_ids = batch.time_ids;
  if (batch.guidance.defined()) {
    input.timestep_cond = guidance_embedding(batch.guidance, unet_traits_.time_cond_proj_dim)
                              .to(unet_placement_.device);
  }
  vae_.leave();
  return unet_.get().forward(input, adapters);
}

at::Tensor LatentDiffusion::decode(const at::Tensor& latents, bool tiled) const {
  const auto per_channel = [&](const std::vector<double>& values) {
    return at::tensor(values, at::kFloat).view({1, -1, 1, 1}).to(latents.device());
  };
  unet_.leave();
  const models::AutoencoderKL& vae = vae_.get();
  at::Tensor z = latents / vae.scaling_factor();
  if (vae.latents_mean() && vae.latents_std()) {
    z = z * per_channel(*vae.latents_std()) + per_channel(*vae.latents_mean());
  }
  if (vae.shift_factor() != 0.0) z = z + vae.shift_factor();
  models::AutoencoderOptions options = vae_options_;
  options.tiling |= tiled;
  return vae.decode(z, options).to(at::kFloat);
}

// The widest moment of a UNet forward is at full latent size: the skips that wait for the way up,
// the feed-forward's two halves of 4C each, and a few copies of the activation. About 48 C per
// position, measured on SD 1.5 and SDXL.
std::uint64_t LatentDiffusion::denoise_bytes(std::int64_t rows, std::int64_t h,
                                             std::int64_t w) const {
  const std::uint64_t element = unet_placement_.compute == at::kFloat ? 4 : 2;
  return static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(h) *
         static_cast<std::uint64_t>(w) * static_cast<std::uint64_t>(unet_traits_.base_channels) *
         48 * element;
}

// At full picture size the decoder holds about four activations of its second-widest block at once;
// with tiling only one tile's worth.
std::uint64_t LatentDiffusion::decode_bytes(std::int64_t h, std::int64_t w, bool tiled) const {
  const std::uint64_t element = vae_placement_.compute == at::kFloat ? 4 : 2;
  const std::int64_t factor = vae_traits_.spatial_factor;
  std::int64_t rows = h * factor, columns = w * factor;
  if (vae_options_.tiling || tiled) {
    rows = std::min(rows, vae_traits_.tile_sample_size);
    columns = std::min(columns, vae_traits_.tile_sample_size);
  }
  const std::uint64_t picture =
      static_cast<std::uint64_t>(h * factor) * static_cast<std::uint64_t>(w * factor) * 3 * 4;
  return static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(columns) *
             static_cast<std::uint64_t>(vae_traits_.full_size_channels) * 4 * element +
         2 * picture;
}

}  // namespace limner::engine::pipelines
