#include "engine/pipelines/stable_diffusion.h"

#include "engine/pipelines/latent_diffusion.h"
#include "engine/pipelines/prompt_encoder.h"
#include "engine/pipelines/text_encoder.h"

namespace limner::engine::pipelines {
namespace {

// [1, L, C]. With clip_skip n the state n layers before the last goes through the final norm, as
// diffusers does.
at::Tensor prompt_state(const models::ClipTextModel& model, const models::ClipTextOutput& output,
                        std::int64_t clip_skip) {
  if (clip_skip == 0) return output.last_hidden_state;
  const auto& states = output.hidden_states;
  return model.final_layer_norm(states[states.size() - 1 - static_cast<std::size_t>(clip_skip)]);
}

class StableDiffusion : public Pipeline {
 public:
  explicit StableDiffusion(const LoadRequest& request)
      : traits_(stable_diffusion_traits(request.folder)),
        text_encoder_(request, ""),
        prompt_encoder_({&text_encoder_}, {.state = prompt_state}, request),
        networks_(request) {}

  const Traits& traits() const override { return traits_; }
  bool embeds_guidance() const override { return networks_.unet().time_cond_proj_dim > 0; }

  EncodedPrompt encode_prompt(const PromptText& text, const TextAdapters& adapters) const override {
    EncodedPrompt encoded = prompt_encoder_.encode(text, adapters);
    leave();
    return encoded;
  }

  at::Tensor time_ids(const contract::ValidRequest&) const override { return {}; }

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
  void leave() const { text_encoder_.leave(); }

  Traits traits_;
  TextEncoder text_encoder_;
  PromptEncoder prompt_encoder_;
  LatentDiffusion networks_;
};

}  // namespace

Traits stable_diffusion_traits(const weights::ModelFolder& folder) {
  const auto [unet, vae] = latent_traits(folder);
  const bool embeds_guidance = unet.time_cond_proj_dim > 0;
  Traits traits;
  traits.family = unet.cross_attention_dim == 1024 ? "sd2" : "sd1";
  traits.latent_channels = vae.latent_channels;
  traits.spatial_factor = vae.spatial_factor;
  traits.default_side = unet.sample_size * vae.spatial_factor;
  traits.default_steps = embeds_guidance ? 4 : 50;
  traits.default_guidance_scale = embeds_guidance ? 8.5 : 7.5;
  traits.clip_layers = text_encoder_traits(folder, "").layers;
  return traits;
}

std::unique_ptr<const Pipeline> load_stable_diffusion(const LoadRequest& request) {
  return std::make_unique<StableDiffusion>(request);
}

}  // namespace limner::engine::pipelines
