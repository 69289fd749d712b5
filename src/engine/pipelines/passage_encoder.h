// One text encoder's states for a passage of any length, with its weights applied.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/pipelines/text_encoder.h"
#include "engine/pipelines/textual_inversion.h"
#include "prompt/parsed_prompt.h"
#include "prompt/token_chunks.h"

namespace limner::engine::pipelines {

struct EncodedPassage {
  at::Tensor states;  // [1, L, C], in the compute dtype
  at::Tensor pooled;  // [1, P]: of the first chunk; of the last one with Weighting::kLpw
};

// For one request; used by one thread. Throws Failure.
class PassageEncoder {
 public:
  // Which of the encoder's states a family takes: [1, L, C].
  using StateOf = std::function<at::Tensor(const models::ClipTextOutput&)>;

  struct Settings {
    contract::PromptOptions options;
    StateOf state;
    const nn::RowAdapters* adapters = nullptr;
    const TextualInversions* inversions = nullptr;
    std::size_t encoder = 0;  // its number in the model: which vectors of an embedding are its own
  };
  PassageEncoder(const TextEncoder& encoder, Settings settings);

  // How many tokens the passage has; what Weighting::kLpw brings to one number.
  std::size_t count_tokens(const prompt::Passage& passage) const;
  // kLpw fills up with end tokens to `least_tokens` and does not pad beyond. What was cut is added
  // to `warnings` once.
  EncodedPassage encode(const prompt::Passage& passage, std::size_t least_tokens,
                        std::vector<std::string>& warnings) const;

  const TextEncoder& encoder() const { return encoder_; }
  const Settings& settings() const { return settings_; }

 private:
  std::vector<prompt::TokenChunk> chunks(const prompt::Passage& passage, std::size_t least_tokens,
                                         std::vector<std::string>& warnings) const;
  models::ClipTextOutput forward(const prompt::TokenChunk& chunk, at::Tensor attended = {}) const;
  const at::Tensor& empty_state() const;
  at::Tensor moved_from_empty(const at::Tensor& state, const prompt::TokenChunk& chunk) const;
  at::Tensor without(const prompt::TokenChunk& chunk, std::int64_t offset, std::int64_t first,
                     std::int64_t last) const;
  at::Tensor weigh_compel(const prompt::Passage& passage,
                          const std::vector<prompt::TokenChunk>& chunks,
                          const std::vector<at::Tensor>& states) const;

  const TextEncoder& encoder_;
  Settings settings_;
  mutable at::Tensor empty_state_;  // made at first need
};

}  // namespace limner::engine::pipelines
