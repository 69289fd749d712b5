// From a prompt and a negative prompt to what the denoiser is told at each step.
#pragma once

#include <memory>
#include <vector>

#include "engine/pipelines/passage_encoder.h"
#include "engine/pipelines/pipeline.h"
#include "engine/pipelines/text_encoder.h"
#include "engine/pipelines/textual_inversion.h"

namespace limner::engine::pipelines {

// What differs between families.
struct PromptTraits {
  // The state of one encoder that the prompt is made of, `clip_skip` layers earlier than usual.
  at::Tensor (*state)(const models::ClipTextModel& model, const models::ClipTextOutput& output,
                      std::int64_t clip_skip) = nullptr;
  bool pooled = false;  // the last encoder's pooled vector is a second conditioning
  bool zeros_for_empty_negative = false;
};

// Immutable; encode is const. The states of several encoders stand side by side.
class PromptEncoder {
 public:
  PromptEncoder(std::vector<const TextEncoder*> encoders, const PromptTraits& traits,
                const LoadRequest& request);

  // Every text of the prompt once, all brought to the same length with empty chunks. Throws
  // Failure.
  EncodedPrompt encode(const PromptText& text, const TextAdapters& adapters) const;

 private:
  std::vector<const TextEncoder*> encoders_;
  PromptTraits traits_;
  TextualInversions inversions_;
};

}  // namespace limner::engine::pipelines
