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
      : text_encoder_(request, ""),
        text_encoder_2_(request, "_2"),
        prompt_encoder_({&text_encoder_, &text_encoder_2_},
                        {.state = prompt_state,
                         .pooled = true,
                         .zeros_for_empty_negative = zeros_for_empty_prompt(request.folder)},
                        request),
        networks_(request) {
    const auto& unet = networks_.unet();
    traits_.family = "sdxl";
    traits_.latent_channels = networks_.vae().latent_channels;
    traits_.spatial_factor = networks_.vae().spatial_factor;
    traits_.default_side = unet.sample_size * traits_.spatial_factor;
    traits_.default_steps = embeds_guidance() ? 4 : 50;
    traits_.default_guidance_scale = 5.0;
    traits_.clip_layers = text_encoder_.layers() - 1;
    traits_.micro_conditioning = true;
    check_widths(request);
  }

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

  void check_widths(const LoadRequest& request) const {
    const auto& unet = networks_.unet();
    const std::int64_t width = text_encoder_.hidden_size() + text_encoder_2_.hidden_size();
    if (unet.cross_attention_dim != width) {
      throw Failure(
          ErrorCode::kInvalidModel,
          fmt::format(
              "{}: the text encoders give {} wide states, the unet wants cross_attention_dim {}",
              request.folder.root.string(), width, unet.cross_attention_dim));
    }
  }

  TextEncoder text_encoder_;
  TextEncoder text_encoder_2_;
  PromptEncoder prompt_encoder_;
  LatentDiffusion networks_;
  Traits traits_;
};

}  // namespace

std::unique_ptr<const Pipeline> load_stable_diffusion_xl(const LoadRequest& request) {
  return std::make_unique<StableDiffusionXL>(request);
}

}  // namespace limner::engine::pipelines
