#include "engine/lora/attach.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/lora/modules.h"

namespace limner::engine::lora {
namespace {

// The branches of one module; a mismatch names file and layer.
AttachedLayer attached(const AdapterFile& file, const Module& module, const Layer& layer,
                       const nn::Placement& placement) {
  try {
    return {layer.component, layer.name, branches_of(module, layer, placement)};
  } catch (const Failure& failure) {
    throw Failure(failure.error().code,
                  fmt::format("{}: {}", file.path().filename().string(), failure.error().message));
  }
}

}  // namespace

std::shared_ptr<const AttachedAdapter> attach(const AdapterFile& file, const ModelLayers& model,
                                              const nn::Placement& placement,
                                              const AttachOptions& options) {
  auto result = std::make_shared<AttachedAdapter>();
  result->report = match(file, model);
  check_matches(result->report, options.allow_partial);
  for (const Module& module : file.modules()) {
    const Layer* layer = model.find(module.name);
    if (layer != nullptr) result->layers.push_back(attached(file, module, *layer, placement));
  }
  for (const AttachedLayer& layer : result->layers) {
    for (const nn::Branch& branch : layer.branches) result->memory_bytes += nn::bytes_of(branch);
  }
  result->identity = options.identity;
  return result;
}

nn::RowAdapters row_adapters(std::string_view component, std::span<const AdapterList* const> rows) {
  std::vector<const AttachedAdapter*> distinct;
  for (const AdapterList* list : rows) {
    for (const ScaledAdapter& use : *list) {
      if (std::ranges::find(distinct, use.adapter.get()) == distinct.end()) {
        distinct.push_back(use.adapter.get());
      }
    }
  }
  nn::RowAdapters result(static_cast<std::int64_t>(rows.size()));
  std::vector<float> weights(rows.size());
  for (const AttachedAdapter* adapter : distinct) {
    for (const AttachedLayer& layer : adapter->layers) {
      if (layer.component != component) continue;
      for (std::size_t row = 0; row < rows.size(); ++row) {
        double sum = 0;
        for (const ScaledAdapter& use : *rows[row]) {
          if (use.adapter.get() == adapter) sum += use.scales.of(component, layer.name);
        }
        weights[row] = static_cast<float>(sum);
      }
      for (const nn::Branch& branch : layer.branches) result.add(layer.name, branch, weights);
    }
  }
  return result;
}

}  // namespace limner::engine::lora
