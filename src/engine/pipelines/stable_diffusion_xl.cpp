#include "engine/pipelines/stable_diffusion_xl.h"

#include <fmt/format.h>

#include "engine/pipelines/latent_diffusion.h"
#include "engine/pipelines/text_encoder.h"

namespace limner::engine::pipelines {
namespace {

class StableDiffusionXL : public Pipeline {
 public:
  explicit StableDiffusionXL(const LoadRequest& request)
      : text_encoder_(request, ""), text_encoder_2_(request, "_2"), networks_(request) {
    const auto flag = request.folder.flags.find("force_zeros_for_empty_prompt");
    zeros_for_empty_ = flag == request.folder.flags.end() || flag->second;
    const auto& unet = networks_.unet().traits();
    traits_.family = "sdxl";
    traits_.latent_channels = networks_.vae().latent_channels();
    traits_.spatial_factor = networks_.vae().spatial_factor();
    traits_.default_side = unet.sample_size * traits_.spatial_factor;
    traits_.default_steps = embeds_guidance() ? 4 : 50;
    traits_.default_guidance_scale = 5.0;
    traits_.clip_layers = text_encoder_.model().layers() - 1;
    check_widths(request);
  }

  const Traits& traits() const override { return traits_; }
  bool embeds_guidance() const override { return networks_.unet().traits().time_cond_proj_dim > 0; }

  Conditioning encode_prompt(const PromptText& text) const override {
    Conditioning conditioning;
    const Encoded positive = encode(text.positive, text.clip_skip, conditioning.warnings);
    conditioning.prompt_embeds = positive.states;
    conditioning.pooled_prompt_embeds = positive.pooled;
    if (text.negative.empty() && zeros_for_empty_) {
      conditioning.negative_prompt_embeds = at::zeros_like(positive.states);
      conditioning.negative_pooled_prompt_embeds = at::zeros_like(positive.pooled);
    } else {
      const Encoded negative = encode(text.negative, 0, conditioning.warnings);
      conditioning.negative_prompt_embeds = negative.states;
      conditioning.negative_pooled_prompt_embeds = negative.pooled;
    }
    return conditioning;
  }

  // [1, 6]: original height and width, crop top and left, target height and width
  at::Tensor time_ids(const contract::ValidRequest& request) const override {
    const contract::MicroConditioning& micro = request.micro();
    return at::tensor({*micro.original_height, *micro.original_width, micro.crop_top,
                       micro.crop_left, *micro.target_height, *micro.target_width},
                      at::kFloat)
        .unsqueeze(0);
  }

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
  struct Encoded {
    at::Tensor states;  // [1, L, C1 + C2]
    at::Tensor pooled;  // [1, P]
  };

  // Both encoders' states one layer before the last, side by side; the second's projection as the
  // pooled vector.
  Encoded encode(const std::string& text, std::int64_t clip_skip,
                 std::vector<std::string>& warnings) const {
    const models::ClipTextOutput first = text_encoder_.encode(text, warnings);
    const models::ClipTextOutput second = text_encoder_2_.encode(text, warnings);
    const auto state = [&](const models::ClipTextOutput& output) {
      return output
          .hidden_states[output.hidden_states.size() - 2 - static_cast<std::size_t>(clip_skip)];
    };
    return {at::cat({state(first), state(second)}, -1), second.pooled};
  }

  void check_widths(const LoadRequest& request) const {
    const auto& unet = networks_.unet().traits();
    const std::int64_t width =
        text_encoder_.model().hidden_size() + text_encoder_2_.model().hidden_size();
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
  LatentDiffusion networks_;
  bool zeros_for_empty_ = true;
  Traits traits_;
};

}  // namespace

std::unique_ptr<const Pipeline> load_stable_diffusion_xl(const LoadRequest& request) {
  return std::make_unique<StableDiffusionXL>(request);
}

}  // namespace limner::engine::pipelines
