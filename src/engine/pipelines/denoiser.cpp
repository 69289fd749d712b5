#include "engine/pipelines/denoiser.h"

namespace limner::engine::pipelines {
namespace {

// Brings the guided prediction's spread back to that of the text-conditioned one ("Common Diffusion
// Noise Schedules and Sample Steps are Flawed", Lin et al. 2023, section 3.4).
at::Tensor rescale_guidance(const at::Tensor& guided, const at::Tensor& text, double amount) {
  const std::vector<std::int64_t> axes = {1, 2, 3};
  const at::Tensor rescaled = guided * (text.std(axes, /*unbiased=*/true, /*keepdim=*/true) /
                                        guided.std(axes, /*unbiased=*/true, /*keepdim=*/true));
  return rescaled * amount + guided * (1.0 - amount);
}

// The rows of one forward, gathered picture by picture: without the prompt first, then with it.
class BatchBuilder {
 public:
  void add(const at::Tensor& sample, const PictureState& picture, bool with_prompt) {
    const Conditioning& conditioning = *picture.conditioning;
    samples_.push_back(sample);
    timesteps_.push_back(static_cast<float>(picture.sampler->timestep()));
    guidance_.push_back(static_cast<float>(picture.guidance_scale));
    prompts_.push_back(with_prompt ? conditioning.prompt_embeds
                                   : conditioning.negative_prompt_embeds);
    const at::Tensor& pooled = with_prompt ? conditioning.pooled_prompt_embeds
                                           : conditioning.negative_pooled_prompt_embeds;
    if (pooled.defined()) pooled_.push_back(pooled);
    if (picture.time_ids.defined()) time_ids_.push_back(picture.time_ids);
  }

  DenoiseBatch build(bool embeds_guidance) const {
    DenoiseBatch batch;
    batch.sample = at::cat(samples_);
    batch.timesteps = at::tensor(timesteps_, at::kFloat).to(batch.sample.device());
    batch.prompt_embeds = at::cat(prompts_);
    if (!pooled_.empty()) batch.pooled_embeds = at::cat(pooled_);
    if (!time_ids_.empty()) batch.time_ids = at::cat(time_ids_).to(batch.sample.device());
    if (embeds_guidance) batch.guidance = at::tensor(guidance_, at::kFloat);
    return batch;
  }

 private:
  std::vector<at::Tensor> samples_, prompts_, pooled_, time_ids_;
  std::vector<float> timesteps_, guidance_;
};

}  // namespace

bool is_guided(const Pipeline& pipeline, const PictureState& picture) {
  return picture.guidance_scale > 1.0 && !pipeline.embeds_guidance();
}

void step(const Pipeline& pipeline, std::span<PictureState* const> pictures) {
  BatchBuilder builder;
  for (const PictureState* picture : pictures) {
    const at::Tensor sample = picture->sampler->model_input(picture->latents);
    if (is_guided(pipeline, *picture)) builder.add(sample, *picture, /*with_prompt=*/false);
    builder.add(sample, *picture, /*with_prompt=*/true);
  }
  const at::Tensor prediction = pipeline.predict_noise(builder.build(pipeline.embeds_guidance()),
                                                       nn::no_adapters());  // [R, C, h, w]

  std::int64_t row = 0;
  for (PictureState* picture : pictures) {
    at::Tensor guided = prediction.narrow(0, row++, 1);
    if (is_guided(pipeline, *picture)) {
      const at::Tensor text = prediction.narrow(0, row++, 1);
      guided = guided + (text - guided) * picture->guidance_scale;
      if (picture->guidance_rescale > 0.0) {
        guided = rescale_guidance(guided, text, picture->guidance_rescale);
      }
    }
    picture->latents = picture->sampler->step(guided, picture->latents, picture->noise);
    if (picture->trace) {
      picture->trace->noise_pred.push_back(guided.clone());
      picture->trace->latents.push_back(picture->latents.clone());
    }
  }
}

}  // namespace limner::engine::pipelines
