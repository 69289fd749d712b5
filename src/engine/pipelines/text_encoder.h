// A tokenizer and its CLIP text encoder, loaded from a model folder.
#pragma once

#include <string>

#include "engine/models/clip_text_model.h"
#include "engine/pipelines/pipeline.h"
#include "engine/pipelines/resident.h"
#include "prompt/clip_tokenizer.h"

namespace limner::engine::pipelines {

// Of the component `text_encoder<suffix>`, from its config alone. Throws Failure(kInvalidModel,
// kUnsupported).
models::ClipTextModel::Traits text_encoder_traits(const weights::ModelFolder& folder,
                                                  const std::string& suffix);

// Immutable; forward is const.
class TextEncoder {
 public:
  // `suffix` is "" or "_2": reads <folder>/tokenizer<suffix> and <folder>/text_encoder<suffix>.
  // Throws Failure.
  TextEncoder(const LoadRequest& request, const std::string& suffix);

  // The network's answer for one chunk of tokens, a batch of one row.
  models::ClipTextOutput forward(const std::vector<std::int32_t>& ids,
                                 const nn::RowAdapters& adapters,
                                 const models::ClipTextChanges& changes) const;

  const models::ClipTextModel& model() const { return model_.get(); }
  std::int64_t hidden_size() const { return hidden_size_; }
  // Until the next use, where the request offloads.
  void leave() const { model_.leave(); }
  const prompt::ClipTokenizer& tokenizer() const { return tokenizer_; }
  at::Device device() const { return device_; }

 private:
  prompt::ClipTokenizer tokenizer_;
  Resident<models::ClipTextModel> model_;
  at::Device device_;
  std::int64_t hidden_size_ = 0;
};

}  // namespace limner::engine::pipelines
