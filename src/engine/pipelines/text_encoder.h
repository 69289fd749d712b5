// A tokenizer and its CLIP text encoder, loaded from a model folder.
#pragma once

#include <string>
#include <vector>

#include "engine/models/clip_text_model.h"
#include "engine/pipelines/pipeline.h"
#include "prompt/clip_tokenizer.h"

namespace limner::engine::pipelines {

// Immutable; encode is const.
class TextEncoder {
 public:
  // `suffix` is "" or "_2": reads <folder>/tokenizer<suffix> and <folder>/text_encoder<suffix>.
  // Throws Failure.
  TextEncoder(const LoadRequest& request, const std::string& suffix);

  // The network's answer for one text; what did not fit is added to `warnings` once.
  models::ClipTextOutput encode(const std::string& text, std::vector<std::string>& warnings) const;

  const models::ClipTextModel& model() const { return model_; }

 private:
  prompt::ClipTokenizer tokenizer_;
  models::ClipTextModel model_;
  at::Device device_;
};

}  // namespace limner::engine::pipelines
