#include "engine/pipelines/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/suggest.h"
#include "engine/pipelines/stable_diffusion.h"
#include "engine/pipelines/stable_diffusion_xl.h"

namespace limner::engine::pipelines {
namespace {

// Checkpoints that are made to change a picture rather than to begin one.
std::string purpose(const std::string& pipeline_class) {
  if (pipeline_class == "StableDiffusionInpaintPipeline" ||
      pipeline_class == "StableDiffusionXLInpaintPipeline")
    return "is an inpainting model, which fills a masked part of a given picture";
  if (pipeline_class == "StableDiffusionXLImg2ImgPipeline")
    return "is an SDXL refiner, which finishes a picture that an SDXL base model began";
  return "";
}

}  // namespace

const std::vector<FamilyInfo>& all_families() {
  static const std::vector<FamilyInfo> families = {
      {"StableDiffusionPipeline", stable_diffusion_traits, load_stable_diffusion},
      {"LatentConsistencyModelPipeline", stable_diffusion_traits, load_stable_diffusion},
      {"StableDiffusionXLPipeline", stable_diffusion_xl_traits, load_stable_diffusion_xl},
  };
  return families;
}

const FamilyInfo& family_of(const weights::ModelFolder& folder) {
  std::vector<std::string> known;
  for (const FamilyInfo& family : all_families()) {
    if (family.pipeline_class == folder.pipeline_class) return family;
    known.push_back(family.pipeline_class);
  }
  if (const std::string what = purpose(folder.pipeline_class); !what.empty()) {
    throw Failure(
        ErrorCode::kUnsupported,
        fmt::format("{}: {}; this build draws whole pictures from words only: give a base "
                    "model instead",
                    folder.root.string(), what));
  }
  throw Failure(ErrorCode::kUnsupported,
                fmt::format("{}: pipeline '{}' is not supported; this build draws with {}",
                            folder.root.string(), folder.pipeline_class, fmt::join(known, ", ")));
}

std::unique_ptr<const Pipeline> load_pipeline(const LoadRequest& request) {
  return family_of(request.folder).load(request);
}

}  // namespace limner::engine::pipelines
