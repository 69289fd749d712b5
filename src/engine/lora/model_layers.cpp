#include "engine/lora/model_layers.h"

#include <algorithm>

#include "base/suggest.h"
#include "engine/weights/checkpoint/name_table.h"

namespace limner::engine::lora {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kTextModel = "text_model.";

std::string with_underscores(std::string name) {
  std::ranges::replace(name, '.', '_');
  return name;
}

// Matrices, convolutions and norms; not embeddings, nor the text encoders' last norm, which the
// prompt's choice of a hidden state goes through on its own.
bool is_layer(std::string_view tensor, const weights::TensorView& view) {
  if (!tensor.ends_with(kWeight)) return false;
  if (view.shape.size() == 1) {
    return tensor.find("norm") != std::string_view::npos &&
           tensor.find("final_layer_norm") == std::string_view::npos;
  }
  return (view.shape.size() == 2 || view.shape.size() == 4) &&
         tensor.find("embeddings.") == std::string_view::npos;
}

}  // namespace

ModelLayers::ModelLayers(Networks networks) : networks_(std::move(networks)) {
  for (const auto& [component, weights] : networks_) add_component(component, *weights);
}

void ModelLayers::add_component(const std::string& component, const weights::Weights& weights) {
  const std::vector<std::string> tensors = weights.names();
  const std::size_t first = layers_.size();
  for (const std::string& tensor : tensors) {
    const weights::TensorView* view = weights.find(tensor);
    if (!is_layer(tensor, *view)) continue;
    const std::string name = tensor.substr(0, tensor.size() - kWeight.size());
    layers_.push_back({component, name, *view, weights.find(name + ".bias")});
  }
  for (std::size_t i = first; i < layers_.size(); ++i) {
    component == "unet" ? add_unet_names(i) : add_text_names(i);
  }
  if (component != "unet") return;
  const auto table = weights::unet_names({tensors.begin(), tensors.end()});
  for (std::size_t i = first; i < layers_.size(); ++i) {
    const auto ldm = table.to_ldm(layers_[i].name + std::string(kWeight));
    if (!ldm) continue;
    const std::string name = ldm->name.substr(0, ldm->name.size() - kWeight.size());
    add_name("lora_unet_" + with_underscores(name), i);
    add_name("lycoris_" + with_underscores(name), i);
    add_name("diffusion_model." + name, i);
    add_name("model.diffusion_model." + name, i);
  }
}

void ModelLayers::add_unet_names(std::size_t index) {
  std::vector<std::string> names = {layers_[index].name};
  constexpr std::string_view kOut = ".to_out.0";  // one layer, which old files call to_out
  if (names.front().ends_with(kOut)) {
    names.push_back(names.front().substr(0, names.front().size() - 2));
  }
  for (const std::string& name : names) {
    add_name(name, index);
    add_name("unet." + name, index);
    add_name("lora_unet." + name, index);
    add_name("lora_unet_" + with_underscores(name), index);
    add_name("lycoris_" + with_underscores(name), index);
  }
}

void ModelLayers::add_text_names(std::size_t index) {
  const std::string& component = layers_[index].component;
  const bool second = component == "text_encoder_2";
  // transformers 5 leaves "text_model." out of the names; adapters come with either.
  std::string bare = layers_[index].name;
  if (bare.starts_with(kTextModel)) bare.erase(0, kTextModel.size());
  for (const std::string& name : {std::string(kTextModel) + bare, bare}) {
    add_name(component + "." + name, index);
    if (!second) add_name(name, index);
    for (const std::string prefix : {second ? "lora_te2" : "lora_te1", second ? "" : "lora_te"}) {
      if (prefix.empty()) continue;
      add_name(prefix + "." + name, index);
      add_name(prefix + "_" + with_underscores(name), index);
    }
  }
}

const Layer* ModelLayers::find(std::string_view spelled) const {
  const auto found = names_.find(std::string(spelled));
  return found == names_.end() ? nullptr : &layers_[found->second];
}

const Layer* ModelLayers::layer(std::string_view component, std::string_view name) const {
  const auto found = std::ranges::find_if(layers_, [&](const Layer& candidate) {
    return candidate.component == component && candidate.name == name;
  });
  return found == layers_.end() ? nullptr : &*found;
}

std::string ModelLayers::near(std::string_view spelled) const {
  const std::string_view style = spelled.substr(0, std::min<std::size_t>(8, spelled.size()));
  std::vector<std::string> names;
  for (const auto& [name, index] : names_) {
    if (name.starts_with(style)) names.push_back(name);
  }
  std::ranges::sort(names);
  const std::vector<std::string> found = nearest(spelled, names, 1);
  return found.empty() ? "" : " (did you mean " + found.front() + "?)";
}

std::string ModelLayers::family() const {
  for (const Layer& layer : layers_) {
    if (layer.component != "unet" || !layer.name.ends_with("attn2.to_k")) continue;
    const std::int64_t width = layer.weight.shape[1];
    return width == 768 ? "sd1" : width == 1024 ? "sd2" : width == 2048 ? "sdxl" : "";
  }
  return "";
}

}  // namespace limner::engine::lora
