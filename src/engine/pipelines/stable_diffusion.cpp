#include "engine/pipelines/stable_diffusion.h"

#include "engine/pipelines/latent_diffusion.h"
#include "engine/pipelines/text_encoder.h"

namespace limner::engine::pipelines {
namespace {

class StableDiffusion : public Pipeline {
 public:
  explicit StableDiffusion(const LoadRequest& request)
      : text_encoder_(request, ""), networks_(request) {
    const auto& unet = networks_.unet().traits();
    traits_.family = unet.cross_attention_dim == 1024 ? "sd2" : "sd1";
    traits_.latent_channels = networks_.vae().latent_channels();
    traits_.spatial_factor = networks_.vae().spatial_factor();
    traits_.default_side = unet.sample_size * traits_.spatial_factor;
    traits_.default_steps = embeds_guidance() ? 4 : 50;
    traits_.default_guidance_scale = embeds_guidance() ? 8.5 : 7.5;
    traits_.clip_layers = text_encoder_.model().layers();
  }

  const Traits& traits() const override { return traits_; }
  bool embeds_guidance() const override { return networks_.unet().traits().time_cond_proj_dim > 0; }

  Conditioning encode_prompt(const PromptText& text) const override {
    Conditioning conditioning;
    conditioning.prompt_embeds = encode(text.positive, text.clip_skip, conditioning.warnings);
    conditioning.negative_prompt_embeds = encode(text.negative, 0, conditioning.warnings);
    return conditioning;
  }

  at::Tensor time_ids(const contract::ValidRequest&) const override { return {}; }

  at::Tensor predict_noise(const DenoiseBatch& batch,
                           const nn::RowAdapters& adapters) const override {
    return networks_.predict_noise(batch, adapters);
  }
  at::Tensor decode(const at::Tensor& latents) const override { return networks_.decode(latents); }
  std::uint64_t denoise_bytes(std::int64_t rows, std::int64_t h, std::int64_t w) const override {
    return networks_.denoise_bytes(rows, h, w);
  }
  std::uint64_t decode_bytes(std::int64_t h, std::int64_t w) const override {
    return networks_.decode_bytes(h, w);
  }

 private:
  // [1, L, C]. With clip_skip n the state n layers before the last goes through the final norm, as
  // diffusers does; it leaves the negative prompt alone.
  at::Tensor encode(const std::string& text, std::int64_t clip_skip,
                    std::vector<std::string>& warnings) const {
    const models::ClipTextOutput output = text_encoder_.encode(text, warnings);
    if (clip_skip == 0) return output.last_hidden_state;
    const auto& states = output.hidden_states;
    return text_encoder_.model().final_layer_norm(
        states[states.size() - 1 - static_cast<std::size_t>(clip_skip)]);
  }

  TextEncoder text_encoder_;
  LatentDiffusion networks_;
  Traits traits_;
};

}  // namespace

std::unique_ptr<const Pipeline> load_stable_diffusion(const LoadRequest& request) {
  return std::make_unique<StableDiffusion>(request);
}

}  // namespace limner::engine::pipelines
