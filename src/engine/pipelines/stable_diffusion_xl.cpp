#include "engine/pipelines/stable_diffusion_xl.h"

#include <fmt/format.h>

#include "engine/pipelines/latent_diffusion.h"
#include "engine/pipelines/prompt_encoder.h"
#include "engine/pipelines/text_encoder.h"

namespace limner::engine::pipelines {
namespace {

// [1, L, C]: the state one layer before the last, without the final norm.
at::Tensor prompt_state(const models::ClipTextModel&, const models::ClipTextOutput& output,
                        std::int64_t clip_skip) {
  const auto& states = output.hidden_states;
  return states[states.size() - 2 - static_cast<std::size_t>(clip_skip)];
}

bool zeros_for_empty_prompt(const weights::ModelFolder& folder) {
  const auto flag = folder.flags.find("force_zeros_for_empty_prompt");
  return flag == folder.flags.end() || flag->second;
}

class StableDiffusionXL : public Pipeline {
 public:
  explicit StableDiffusionXL(const LoadRequest& request)
      : traits_(stable_diffusion_xl_traits(request.folder)),
        text_encoder_(request, ""),
        text_encoder_2_(request, "_2"),
        prompt_encoder_({&text_encoder_, &text_encoder_2_},
                        {.state = prompt_state,
                         .pooled = true,
                         .zeros_for_empty_negative = zeros_for_empty_prompt(request.folder)},
                        request),
        networks_(request) {}

  const Traits& traits() const override { return traits_; }
  bool embeds_guidance() const override { return networks_.unet().time_cond_proj_dim > 0; }

  EncodedPrompt encode_prompt(const PromptText& text, const TextAdapters& adapters) const override {
    EncodedPrompt encoded = prompt_encoder_.encode(text, adapters);
    leave();
    return encoded;
  }

  // [1, 6]: original height and width, crop top and left, target height and width
  at::Tensor time_ids(const contract::ValidRequest& request) const override {
    const contract::MicroConditioning& micro = request.micro();
    return at::tensor({*micro.original_height, *micro.original_width, *micro.crop_top,
                       *micro.crop_left, *micro.target_height, *micro.target_width},
                      at::kFloat)
        .unsqueeze(0);
  }

  at::Tensor predict_noise(const DenoiseBatch& batch,
                           const nn::RowAdapters& adapters) const override {
    return networks_.predict_noise(batch, adapters);
  }
  at::Tensor decode(const at::Tensor& latents, bool tiled) const override {
    return networks_.decode(latents, tiled);
  }
  std::uint64_t denoise_bytes(std::int64_t rows, std::int64_t h, std::int64_t w) const override {
    return networks_.denoise_bytes(rows, h, w);
  }
  std::uint64_t decode_bytes(std::int64_t h, std::int64_t w, bool tiled) const override {
    return networks_.decode_bytes(h, w, tiled);
  }

 private:
  // The text encoders are not needed until the next prompt.
  void leave() const {
    text_encoder_.leave();
    text_encoder_2_.leave();
  }

  Traits traits_;
  TextEncoder text_encoder_;
  TextEncoder text_encoder_2_;
  PromptEncoder prompt_encoder_;
  LatentDiffusion networks_;
};

}  // namespace

Traits stable_diffusion_xl_traits(const weights::ModelFolder& folder) {
  const auto [unet, vae] = latent_traits(folder);
  const auto text = text_encoder_traits(folder, ""), text_2 = text_encoder_traits(folder, "_2");
  const std::int64_t width = text.hidden_size + text_2.hidden_size;
  if (unet.cross_attention_dim != width) {
    throw Failure(
        ErrorCode::kInvalidModel,
        fmt::format(
            "{}: the text encoders give {} wide states, the unet wants cross_attention_dim {}",
            folder.root.string(), width, unet.cross_attention_dim));
  }
  Traits traits;
  traits.family = "sdxl";
  traits.latent_channels = vae.latent_channels;
  traits.spatial_factor = vae.spatial_factor;
  traits.default_side = unet.sample_size * vae.spatial_factor;
  traits.default_steps = unet.time_cond_proj_dim > 0 ? 4 : 50;
  traits.default_guidance_scale = 5.0;
  traits.clip_layers = text.layers - 1;
  traits.micro_conditioning = true;
  return traits;
}

std::unique_ptr<const Pipeline> load_stable_diffusion_xl(const LoadRequest& request) {
  return std::make_unique<StableDiffusionXL>(request);
}

}  // namespace limner::engine::pipelines
