// Builds a network from a component folder: config, weights, network, and the check that nothing was left over.
#pragma once

#include <fmt/format.h>

#include "engine/pipelines/pipeline.h"
#include "engine/weights/config.h"
#include "engine/weights/weights.h"

namespace limner::engine::pipelines {

// Throws Failure(kInvalidModel) when model_index.json does not list the component.
inline const weights::ComponentEntry& require_component(const weights::ModelFolder& folder,
                                                        const std::string& component) {
  const auto found = folder.components.find(component);
  if (found == folder.components.end()) {
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}/model_index.json: no '{}' listed, which a {} needs",
                              folder.root.string(), component, folder.pipeline_class));
  }
  return found->second;
}

// build(config, source) makes the network.
template <typename Build>
auto build_component(const LoadRequest& request, const std::string& component,
                     const nn::Placement& placement, Build build) {
  require_component(request.folder, component);
  const weights::Config config = weights::Config::read(request.folder.config_file(component));
  const nn::TensorSource source(
      weights::Weights::open_component(request.folder.root / component, request.variant).value_or_throw(),
      placement);
  auto network = build(config, source);
  config.finish();
  source.finish();
  return network;
}

}  // namespace limner::engine::pipelines
