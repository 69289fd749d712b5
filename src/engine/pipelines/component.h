// Builds a network from a component of a model: config, weights, network.
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

// build(config, source) makes the network, which checks that nothing was left over.
template <typename Build>
auto build_component(const LoadRequest& request, const std::string& component,
                     const nn::Placement& placement, Build build) {
  require_component(request.folder, component);
  const weights::Config config = request.folder.config(component);
  const nn::TensorSource source(request.folder.weights(component, request.variant).value_or_throw(),
                                placement);
  return build(config, source);
}

}  // namespace limner::engine::pipelines
