// CLIPTextModel and CLIPTextModelWithProjection of transformers.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "engine/nn/row_adapters.h"
#include "engine/nn/tensor_source.h"
#include "engine/weights/config.h"

namespace limner::engine::models {

struct ClipTextOutput {
  std::vector<at::Tensor>
      hidden_states;  // embeddings, then after each layer: num_hidden_layers + 1 of [B, L, C]
  at::Tensor last_hidden_state;  // [B, L, C], after the final layer norm
  at::Tensor pooled;             // [B, C], or [B, projection_dim] with a projection
};

// Vectors [k, C] in the place of the k tokens from `position` on: a textual-inversion embedding.
struct TokenVectors {
  int64_t position = 0;
  at::Tensor vectors;
};

// What may differ from a plain forward of ids.
struct ClipTextChanges {
  std::vector<TokenVectors> insertions;  // into every row
  at::Tensor attended;  // bool [B, L]: keys that queries may look at; undefined: all
};

// Immutable; forward is const and thread-safe.
class ClipTextModel {
 public:
  // `with_projection`: CLIPTextModelWithProjection. Throws Failure(kInvalidModel).
  ClipTextModel(const weights::Config& config, const nn::TensorSource& source,
                bool with_projection);
  ClipTextModel(ClipTextModel&&) noexcept;
  ~ClipTextModel();

  // ids: int64 [B, L], L <= max_position_embeddings.
  ClipTextOutput forward(const at::Tensor& ids, const nn::RowAdapters& adapters = nn::no_adapters(),
                         const ClipTextChanges& changes = {}) const;

  struct Traits {
    int64_t hidden_size = 768;
    int64_t layers = 12;
  };
  // From the config alone. Throws Failure(kInvalidModel).
  static Traits traits_of(const weights::Config& config, bool with_projection);

  int64_t hidden_size() const;
  int64_t max_positions() const;
  int64_t vocabulary_size() const;
  int64_t layers() const;
  // The norm that last_hidden_state has passed, for callers that take an earlier state (clip skip).
  at::Tensor final_layer_norm(const at::Tensor& hidden_state) const;

 private:
  struct Network;
  std::unique_ptr<const Network> network_;
};

}  // namespace limner::engine::models
