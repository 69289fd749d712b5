// The layers of a model that adapters may change, under every name that adapter files call them by.
// Made from the model's own tensors, so that spellings which lose information ("attn1_to_out_0")
// are looked up and never guessed.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/weights/weights.h"

namespace limner::engine::lora {

// The networks of a model by component name: "unet", "text_encoder", "text_encoder_2".
using Networks = std::map<std::string, std::shared_ptr<const weights::Weights>>;

struct Layer {
  std::string component;
  std::string name;  // as the network calls it, in diffusers' names
  weights::TensorView weight;
  const weights::TensorView* bias = nullptr;
  bool is_convolution() const { return weight.shape.size() == 4; }
  bool is_norm() const { return weight.shape.size() == 1; }
};

// Immutable; keeps the networks' weights.
class ModelLayers {
 public:
  explicit ModelLayers(Networks networks);

  // The layer that an adapter file spells so; nullptr for none. Spellings: kohya (lora_unet_,
  // lora_te_, lora_te1_, lora_te2_, also with the block names of single-file checkpoints), LyCORIS
  // (lycoris_), OneTrainer (the same with dots), diffusers and PEFT (unet., text_encoder.,
  // text_encoder_2.), ComfyUI (diffusion_model.), and diffusers' bare layer names.
  const Layer* find(std::string_view spelled) const;
  const Layer* layer(std::string_view component, std::string_view name) const;
  const std::vector<Layer>& layers() const { return layers_; }
  // " (did you mean ...?)" among the names of that style, or "".
  std::string near(std::string_view spelled) const;
  // "sd1", "sd2", "sdxl" by the width of the UNet's cross-attention, or "".
  std::string family() const;

 private:
  void add_component(const std::string& component, const weights::Weights& weights);
  void add_unet_names(std::size_t index);
  void add_text_names(std::size_t index);
  void add_name(std::string spelled, std::size_t index) { names_.emplace(spelled, index); }

  Networks networks_;
  std::vector<Layer> layers_;
  std::unordered_map<std::string, std::size_t> names_;
};

}  // namespace limner::engine::lora
