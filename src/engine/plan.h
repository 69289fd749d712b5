// ModelPlan: what is decided about a model before its networks are built.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "engine/engine.h"
#include "engine/nn/tensor_source.h"
#include "engine/pipelines/pipeline.h"
#include "engine/weights/model_folder.h"

namespace limner::engine {

struct ModelPlan {
  weights::ModelFolder folder;
  nn::Placement placement;
  Offload offload = Offload::kNone;
  nlohmann::json sampler_config;
  pipelines::Traits traits;
  ModelDescription description;
};

// Reads headers and configurations, no weights. Throws Failure: a folder, a variant, a device or a
// sampler that cannot be used.
ModelPlan plan_model(const Composition& composition);

// Throws Failure(kOutOfMemory) where the weights are more than `room` bytes of the host's memory;
// that of other devices is theirs to judge.
void check_room(const ModelPlan& plan, std::uint64_t room);

}  // namespace limner::engine
