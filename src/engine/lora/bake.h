// Merging adapters into weights: an explicit step that makes a new model. Drawing never does it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/lora/adapter_file.h"
#include "engine/lora/adapter_use.h"
#include "engine/lora/model_layers.h"

namespace limner::engine::lora {

struct BakedAdapter {
  std::shared_ptr<const AdapterFile> file;
  AdapterScales scales;
};

// Yields the merged tensors of a model one at a time, so that a caller holds one tensor in memory.
// All differences are computed from the model's own weights and summed in order, in float32: what
// is drawn afterwards is what the adapters would have drawn. Immutable; safe to call from threads.
class Baker {
 public:
  // `model` must outlive the baker. Throws Failure(kInvalidModel) as attach does.
  Baker(const ModelLayers& model, std::vector<BakedAdapter> adapters, bool allow_partial = false);

  // `tensor` is a diffusers name ("mid_block.attentions.0.proj_in.weight") of `component` ("unet",
  // "text_encoder", "text_encoder_2"), `base` its values in any dtype. The merged tensor in
  // float32, or nothing when no adapter touches it. A bias that the model does not have cannot be
  // merged: the constructor refuses it.
  std::optional<at::Tensor> operator()(std::string_view component, std::string_view tensor,
                                       const at::Tensor& base) const;

 private:
  struct Change {
    const Layer* layer;
    const Module* module;
    double weight;
  };
  std::vector<BakedAdapter> adapters_;
  std::vector<Change> changes_;  // in the adapters' order
};

}  // namespace limner::engine::lora
