#include "engine/lora/bake.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "engine/lora/modules.h"
#include "engine/lora/report.h"
#include "engine/weights/message_text.h"

namespace limner::engine::lora {

Baker::Baker(const ModelLayers& model, std::vector<BakedAdapter> adapters, bool allow_partial)
    : adapters_(std::move(adapters)) {
  for (const BakedAdapter& adapter : adapters_) {
    check_matches(match(*adapter.file, model), allow_partial);
    for (const Module& module : adapter.file->modules()) {
      const Layer* layer = model.find(module.name);
      if (layer == nullptr) continue;
      if (brings_bias(module) && layer->bias == nullptr) {
        throw Failure(
            ErrorCode::kInvalidModel,
            fmt::format("{}: {} changes the bias of a layer that has none; it can be "
                        "drawn with, but not merged",
                        adapter.file->path().filename().string(), weights::quote(module.name)));
      }
      const double weight = adapter.scales.of(layer->component, layer->name);
      if (weight != 0.0) changes_.push_back({layer, &module, weight});
    }
  }
}

std::optional<at::Tensor> Baker::operator()(std::string_view component, std::string_view tensor,
                                            const at::Tensor& base) const {
  const auto dot = tensor.rfind('.');
  const std::string_view name = tensor.substr(0, dot);
  const std::string_view kind = dot == std::string_view::npos ? "" : tensor.substr(dot + 1);
  if (kind != "weight" && kind != "bias") return std::nullopt;
  std::optional<at::Tensor> merged;
  for (const Change& change : changes_) {
    if (change.layer->component != component || change.layer->name != name) continue;
    const at::Tensor plain = base.to(at::kFloat);
    const at::Tensor difference =
        kind == "weight" ? weight_difference(*change.module, plain)
                         : bias_difference(*change.module, change.layer->weight.shape, plain);
    if (!difference.defined()) continue;
    if (!merged) merged = plain.clone();
    merged->add_(difference, change.weight);
  }
  return merged;
}

}  // namespace limner::engine::lora
