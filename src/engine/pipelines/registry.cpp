#include "engine/pipelines/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/suggest.h"
#include "engine/pipelines/stable_diffusion.h"
#include "engine/pipelines/stable_diffusion_xl.h"

namespace limner::engine::pipelines {

const std::vector<FamilyInfo>& all_families() {
  static const std::vector<FamilyInfo> families = {
      {"StableDiffusionPipeline", load_stable_diffusion},
      {"LatentConsistencyModelPipeline", load_stable_diffusion},
      {"StableDiffusionXLPipeline", load_stable_diffusion_xl},
  };
  return families;
}

std::unique_ptr<const Pipeline> load_pipeline(const LoadRequest& request) {
  std::vector<std::string> known;
  for (const FamilyInfo& family : all_families()) {
    if (family.pipeline_class == request.folder.pipeline_class) return family.load(request);
    known.push_back(family.pipeline_class);
  }
  throw Failure(ErrorCode::kUnsupported,
                fmt::format("{}: pipeline '{}' is not supported; this build draws with {}",
                            request.folder.root.string(), request.folder.pipeline_class,
                            fmt::join(known, ", ")));
}

}  // namespace limner::engine::pipelines
