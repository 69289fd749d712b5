// The list of families: one line each in registry.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/pipelines/pipeline.h"

namespace limner::engine::pipelines {

struct FamilyInfo {
  std::string pipeline_class;                     // as model_index.json names it
  Traits (*traits)(const weights::ModelFolder&);  // by the configs alone
  std::unique_ptr<const Pipeline> (*load)(const LoadRequest&);
};

const std::vector<FamilyInfo>& all_families();

// The model's own. Throws Failure(kUnsupported) for a pipeline class nobody here knows, naming
// those we do.
const FamilyInfo& family_of(const weights::ModelFolder& folder);
std::unique_ptr<const Pipeline> load_pipeline(const LoadRequest& request);

}  // namespace limner::engine::pipelines
