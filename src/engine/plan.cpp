#include "engine/plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "base/human_bytes.h"
#include "engine/pipelines/placement.h"
#include "engine/pipelines/registry.h"
#include "engine/samplers/registry.h"
#include "engine/weights/config.h"
#include "engine/weights/weights.h"

namespace limner::engine {
namespace {

namespace fs = std::filesystem;

// The weight components of a folder: their bytes, and the dtype of most of them.
pipelines::CheckpointFacts facts_of(const weights::ModelFolder& folder,
                                    const std::string& variant) {
  pipelines::CheckpointFacts facts;
  std::map<std::string, std::uint64_t> by_dtype;
  for (const auto& [component, entry] : folder.components) {
    if (!folder.has_weights(component)) continue;
    const auto opened = folder.weights(component, variant);
    if (!opened.ok()) continue;  // loading it will say what is wrong
    facts.weight_bytes += (*opened)->bytes();
    facts.largest_component_bytes = std::max(facts.largest_component_bytes, (*opened)->bytes());
    for (const std::string& name : (*opened)->names()) {
      const weights::TensorView* tensor = (*opened)->find(name);
      by_dtype[std::string(weights::name(tensor->dtype))] += tensor->bytes.size();
    }
  }
  std::uint64_t most = 0;
  for (const auto& [dtype, bytes] : by_dtype) {
    if (bytes > most) {
      most = bytes;
      facts.dtype = dtype;
    }
  }
  return facts;
}

// A variant that no component has is a mistake; one that only some have is usual.
void check_variant(const weights::ModelFolder& folder, const std::string& variant) {
  if (variant.empty()) return;
  std::set<std::string> known;
  for (const auto& [component, entry] : folder.components) {
    for (const std::string& name : weights::Weights::variants(folder.root / component)) {
      if (name == variant) return;
      if (!name.empty()) known.insert(name);
    }
  }
  throw Failure(
      ErrorCode::kInvalidArgument,
      fmt::format("{} has no variant '{}'; {}", folder.root.string(), variant.substr(0, 64),
                  known.empty() ? "its weights have none"
                                : fmt::format("there are: {}", fmt::join(known, ", "))));
}

// limner.json beside model_index.json may carry the defaults its maker recommends.
void read_defaults(const weights::ModelFolder& folder, contract::Limits& limits) {
  const std::optional<weights::Config> found = folder.recommendations();
  if (!found) return;
  const weights::Config& root = *found;
  const weights::Config defaults(root.raw("defaults"), root.where() + ": defaults");
  limits.default_width = defaults.integer_in("width", limits.default_width, 8, limits.largest_side);
  limits.default_height =
      defaults.integer_in("height", limits.default_height, 8, limits.largest_side);
  limits.default_steps = defaults.integer_in("steps", limits.default_steps, 1, limits.most_steps);
  limits.default_guidance_scale = defaults.number("guidance_scale", limits.default_guidance_scale);
  defaults.finish();
  root.finish();
}

contract::Limits limits_of(const pipelines::Traits& traits, const weights::ModelFolder& folder) {
  contract::Limits limits;
  limits.default_width = limits.default_height = traits.default_side;
  limits.default_steps = traits.default_steps;
  limits.default_guidance_scale = traits.default_guidance_scale;
  limits.multiple = limits.smallest_side = traits.spatial_factor;
  limits.most_clip_skip = traits.clip_layers - 1;
  limits.micro_conditioning = traits.micro_conditioning;
  limits.samplers = sampler_names();
  limits.schedules = schedule_names();
  read_defaults(folder, limits);
  return limits;
}

}  // namespace

ModelPlan plan_model(const Composition& composition) {
  ModelPlan plan;
  plan.folder = weights::read_model(composition.model, {.tokenizer = composition.tokenizer,
                                                        .prediction = composition.prediction})
                    .value_or_throw();
  check_variant(plan.folder, composition.variant);
  const pipelines::CheckpointFacts facts = facts_of(plan.folder, composition.variant);
  plan.placement = pipelines::place(composition.precision, composition.device, facts);
  plan.offload = pipelines::resolve_offload(composition.offload, plan.placement.device);
  plan.placement.sequential = plan.offload == Offload::kSequential;
  const std::uint64_t stored = facts.dtype == "F32" ? 4 : 2;
  plan.description.weight_bytes =
      (plan.offload == Offload::kNone ? facts.weight_bytes : facts.largest_component_bytes) /
      stored * c10::elementSize(plan.placement.storage);
  plan.traits = pipelines::family_of(plan.folder).traits(plan.folder);
  plan.description.limits = limits_of(plan.traits, plan.folder);

  ModelInfo& info = plan.description.info;
  const fs::path& root = plan.folder.root;
  info.name = (plan.folder.single_file ? root.stem() : root.filename()).string();
  info.family = plan.traits.family;
  info.pipeline = plan.folder.pipeline_class;
  info.device = plan.placement.device.str();
  info.storage_dtype = pipelines::dtype_name(plan.placement.storage);
  info.compute_dtype = pipelines::dtype_name(plan.placement.compute);
  // A checkpoint whose own sampler cannot be made is refused now, not at the first picture.
  plan.sampler_config = plan.folder.scheduler_config();
  info.sampler = samplers::checkpoint_sampler(plan.sampler_config).value_or_throw();
  return plan;
}

void check_room(const ModelPlan& plan, std::uint64_t room) {
  const std::uint64_t need = plan.description.weight_bytes;
  if (!plan.placement.device.is_cpu() || need <= room) return;
  throw Failure(
      ErrorCode::kOutOfMemory,
      fmt::format("{}: the weights need {} as {}, and {} are free{}", plan.folder.root.string(),
                  human_bytes(need), plan.description.info.storage_dtype, human_bytes(room),
                  plan.placement.storage == at::kFloat ? "; --dtype bfloat16 needs half" : ""));
}

}  // namespace limner::engine
