#include "engine/pipelines/denoiser.h"

#include <algorithm>
#include <map>

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

const Conditioning& at_step(const ConditioningSchedule& schedule, std::int64_t step) {
  for (const ConditioningSpan& span : schedule) {
    if (step <= span.until_step) return *span.conditioning;
  }
  return *schedule.back().conditioning;
}

// What a picture is told in one step: each different conditioning once, the negative one first.
struct StepPrompt {
  std::vector<const Conditioning*> rows;
  std::vector<double> weights;  // of the rows behind the negative one
  bool guided = false;
};

StepPrompt step_prompt(const Pipeline& pipeline, const PictureState& picture) {
  StepPrompt prompt;
  const auto step = static_cast<std::int64_t>(picture.sampler->history().position) + 1;
  prompt.guided = is_guided(pipeline, picture);
  if (prompt.guided) prompt.rows.push_back(&at_step(picture.prompt->negative, step));
  const std::size_t first = prompt.rows.size();
  for (const auto& [weight, schedule] : picture.prompt->conjuncts) {
    const Conditioning* wanted = &at_step(schedule, step);
    const auto known = std::find(prompt.rows.begin() + static_cast<std::ptrdiff_t>(first),
                                 prompt.rows.end(), wanted);
    if (known != prompt.rows.end()) {
      prompt.weights[static_cast<std::size_t>(known - prompt.rows.begin()) - first] += weight;
    } else {
      prompt.rows.push_back(wanted);
      prompt.weights.push_back(weight);
    }
  }
  return prompt;
}

// The rows of one forward, which agree in the length of their prompts.
class BatchBuilder {
 public:
  void add(const at::Tensor& sample, const PictureState& picture,
           const Conditioning& conditioning) {
    samples_.push_back(sample);
    adapters_.push_back(&picture.adapters);
    timesteps_.push_back(static_cast<float>(picture.sampler->timestep()));
    guidance_.push_back(static_cast<float>(picture.guidance_scale));
    prompts_.push_back(conditioning.prompt_embeds);
    if (conditioning.pooled_prompt_embeds.defined()) {
      pooled_.push_back(conditioning.pooled_prompt_embeds);
    }
    if (picture.time_ids.defined()) time_ids_.push_back(picture.time_ids);
  }

  std::int64_t rows() const { return static_cast<std::int64_t>(samples_.size()); }
  const std::vector<const lora::AdapterList*>& adapters() const { return adapters_; }

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
  std::vector<const lora::AdapterList*> adapters_;
};

// Where a picture's rows are: in the forward of its prompt's length, from this row on.
struct Place {
  std::int64_t length = 0;
  std::int64_t first_row = 0;
};

// Classifier-free guidance over all sides of an AND ("Compositional Visual Generation with
// Composable Diffusion Models", Liu et al. 2022): none + scale * sum of weight * (side - none).
at::Tensor guide(const at::Tensor& rows, const StepPrompt& prompt, const PictureState& picture) {
  if (!prompt.guided) return rows;
  const at::Tensor none = rows.narrow(0, 0, 1);
  at::Tensor text = rows.narrow(0, 1, 1);
  if (prompt.weights.size() > 1 || prompt.weights.front() != 1.0) {
    text = none;
    for (std::size_t i = 0; i < prompt.weights.size(); ++i) {
      text =
          text + (rows.narrow(0, static_cast<std::int64_t>(i) + 1, 1) - none) * prompt.weights[i];
    }
  }
  const at::Tensor guided = none + (text - none) * std::max(picture.guidance_scale, 1.0);
  return picture.guidance_rescale > 0.0 ? rescale_guidance(guided, text, picture.guidance_rescale)
                                        : guided;
}

}  // namespace

bool is_guided(const Pipeline& pipeline, const PictureState& picture) {
  const auto& conjuncts = picture.prompt->conjuncts;
  const bool sided = conjuncts.size() > 1 || conjuncts.front().weight != 1.0;
  if (pipeline.embeds_guidance()) {
    if (sided) {
      throw Failure(ErrorCode::kUnsupported,
                    "AND in a prompt needs guidance by a negative prompt, which this distilled "
                    "model has none of");
    }
    return false;
  }
  return picture.guidance_scale > 1.0 || sided;
}

std::int64_t rows_of(const Pipeline& pipeline, const PictureState& picture) {
  return static_cast<std::int64_t>(picture.prompt->conjuncts.size()) +
         (is_guided(pipeline, picture) ? 1 : 0);
}

void step(const Pipeline& pipeline, BatchAdapters& adapters,
          std::span<PictureState* const> pictures) {
  std::map<std::int64_t, BatchBuilder> forwards;  // by length of the prompts
  std::vector<StepPrompt> prompts;
  std::vector<Place> places;
  for (const PictureState* picture : pictures) {
    prompts.push_back(step_prompt(pipeline, *picture));
    const std::int64_t length = prompts.back().rows.front()->prompt_embeds.size(1);
    BatchBuilder& forward = forwards[length];
    places.push_back({length, forward.rows()});
    const at::Tensor sample = picture->sampler->model_input(picture->latents);
    for (const Conditioning* row : prompts.back().rows) forward.add(sample, *picture, *row);
  }
  std::map<std::int64_t, at::Tensor> predictions;  // [R, C, h, w]
  for (const auto& [length, forward] : forwards) {
    predictions[length] = pipeline.predict_noise(forward.build(pipeline.embeds_guidance()),
                                                 adapters.unet(forward.adapters()));
  }

  for (std::size_t i = 0; i < pictures.size(); ++i) {
    PictureState* const picture = pictures[i];
    const at::Tensor rows = predictions[places[i].length].narrow(
        0, places[i].first_row, static_cast<std::int64_t>(prompts[i].rows.size()));
    const at::Tensor guided = guide(rows, prompts[i], *picture);
    picture->latents = picture->sampler->step(guided, picture->latents, picture->noise);
    if (picture->trace) {
      picture->trace->noise_pred.push_back(guided.clone());
      picture->trace->latents.push_back(picture->latents.clone());
    }
  }
}

}  // namespace limner::engine::pipelines
