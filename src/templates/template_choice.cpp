#include "templates/template_choice.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "base/suggest.h"

namespace limner::templates {
namespace {

using platform::Template;

void apply_defaults(const platform::TemplateDefaults& defaults,
                    contract::GenerationRequest& picture) {
  if (!picture.steps) picture.steps = defaults.steps;
  if (!picture.width) picture.width = defaults.width;
  if (!picture.height) picture.height = defaults.height;
  if (!picture.guidance_scale) picture.guidance_scale = defaults.guidance_scale;
  if (picture.sampler.empty()) picture.sampler = defaults.sampler;
  const bool own_schedule = picture.schedule != contract::GenerationRequest{}.schedule;
  if (!own_schedule && !defaults.schedule.empty()) picture.schedule = defaults.schedule;
  if (picture.negative_prompt.empty()) picture.negative_prompt = defaults.negative_prompt;
  if (defaults.prompt_prefix.empty()) return;
  picture.prompt = picture.prompt.empty()
                       ? defaults.prompt_prefix
                       : fmt::format("{}, {}", defaults.prompt_prefix, picture.prompt);
}

// Templates::find's message names the file, which is not for strangers.
Result<Template> find(const platform::Templates& templates, const std::string& key) {
  const auto found = templates.by_key.find(key);
  if (found != templates.by_key.end()) return found->second;
  std::vector<std::string> keys;
  for (const auto& [known, made] : templates.by_key) keys.push_back(known);
  return Error{ErrorCode::kNotFound,
               fmt::format("'{}' is not known{}", key.substr(0, 128), did_you_mean(key, keys))};
}

std::string stem(const std::string& filename) {
  return std::filesystem::path(filename).stem().string();
}

// The checkpoint under its folder's or its file's name.
const contract::ModelCard* checkpoint_of(const Template& chosen, const contract::Catalog& catalog) {
  const auto* converted = catalog.model(chosen.checkpoint.diffusers_dir);
  return converted != nullptr ? converted : catalog.model(stem(chosen.checkpoint.filename));
}

// The template's adapters as the catalog names them; nothing when one is not there.
std::optional<std::vector<contract::AdapterChoice>> adapters_of(const Template& chosen,
                                                                const contract::Catalog& catalog) {
  std::vector<contract::AdapterChoice> adapters;
  for (const platform::TemplateLora& lora : chosen.loras) {
    const auto* card = catalog.adapter(stem(lora.filename));
    if (card == nullptr) return std::nullopt;
    adapters.push_back({.name = card->name, .weight = lora.scale, .sha256 = lora.sha256});
  }
  return adapters;
}

}  // namespace

Result<void> choose_template(contract::JobRequest& request, const platform::Templates* templates,
                             const contract::Catalog& catalog) {
  if (templates == nullptr) {
    return Error{ErrorCode::kNotFound, "is given, but this service has no templates"};
  }
  const auto chosen = find(*templates, request.template_name);
  if (!chosen.ok()) return chosen.error();
  apply_defaults(chosen->defaults, request.picture);
  if (const auto* built = catalog.model(chosen->model_dir()); built != nullptr) {
    request.model = built->name;
    return {};
  }
  const auto* checkpoint = checkpoint_of(*chosen, catalog);
  auto adapters = adapters_of(*chosen, catalog);
  if (checkpoint == nullptr || !adapters) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("'{}' is not built: there is no model {}; run `limner template build`",
                             chosen->key, chosen->model_dir())};
  }
  request.model = checkpoint->name;
  request.adapters = std::move(*adapters);
  return {};
}

}  // namespace limner::templates
