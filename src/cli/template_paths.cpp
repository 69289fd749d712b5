#include "cli/template_paths.h"

#include <fmt/format.h>

#include <cstdlib>

#include "cli/lora_paths.h"
#include "cli/model_paths.h"
#include "platform/templates/model_places.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
using platform::Template;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void apply_defaults(const platform::TemplateDefaults& defaults,
                    contract::GenerationRequest& asked) {
  if (!asked.steps) asked.steps = defaults.steps;
  if (!asked.width) asked.width = defaults.width;
  if (!asked.height) asked.height = defaults.height;
  if (!asked.guidance_scale) asked.guidance_scale = defaults.guidance_scale;
  if (asked.sampler.empty()) asked.sampler = defaults.sampler;
  if (asked.schedule == contract::GenerationRequest{}.schedule && !defaults.schedule.empty())
    asked.schedule = defaults.schedule;
  if (asked.negative_prompt.empty()) asked.negative_prompt = defaults.negative_prompt;
}

// The checkpoint, converted or as it was downloaded.
Result<fs::path> find_checkpoint(const Template& chosen, const std::vector<fs::path>& folders) {
  std::error_code ignored;
  for (const fs::path& folder : folders) {
    for (const fs::path& place :
         {folder / chosen.checkpoint.diffusers_dir, folder / chosen.checkpoint.filename,
          folder / "downloads" / chosen.checkpoint.filename}) {
      if (fs::exists(place / "model_index.json", ignored) || fs::is_regular_file(place, ignored))
        return place;
    }
  }
  return Error{ErrorCode::kNotFound, ""};
}

}  // namespace

fs::path templates_file(const std::string& given) {
  if (!given.empty()) return given;
  const std::string set = variable("LIMNER_TEMPLATES");
  return set.empty() ? fs::path("templates.json") : fs::path(set);
}

Result<void> apply_template(GenerateOptions& options, std::string& said) {
  const auto templates = platform::read_templates(templates_file(options.templates));
  if (!templates.ok()) return templates.error();
  const auto chosen = templates->find(options.template_name);
  if (!chosen.ok()) return chosen.error();
  const std::string set = variable("LIMNER_MODEL");
  if (options.place.model != ModelOptions{}.model && options.place.model != set) {
    return Error{ErrorCode::kInvalidArgument,
                 "--template and --model both name a model; leave one of them out"};
  }
  apply_defaults(chosen->defaults, options.request);
  options.prompt_prefix = chosen->defaults.prompt_prefix;

  const std::vector<fs::path> folders = model_folders();
  const auto built = platform::place_model(
      {.dir = chosen->model_dir(), .volume = variable("LIMNER_VOLUME"), .images = folders});
  if (built.ok()) {
    options.place.model = built->folder.string();
    said = built->said;
    return {};
  }
  if (built.error().code != ErrorCode::kNotFound) return built.error();
  const auto checkpoint = find_checkpoint(*chosen, folders);
  if (!checkpoint.ok()) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("template '{}' is not built: {}; run `limner template build --file {} "
                             "--out models`",
                             chosen->key, built.error().message, templates->file.string())};
  }
  options.place.model = checkpoint->string();
  if (options.place.prediction.empty()) options.place.prediction = chosen->checkpoint.prediction;
  std::vector<std::string> use;
  for (const platform::TemplateLora& lora : chosen->loras) {
    const fs::path beside = checkpoint->parent_path() / "downloads" / lora.filename;
    std::error_code ignored;
    const auto file = fs::exists(beside, ignored)
                          ? Result<fs::path>(beside)
                          : lora_folders(options.loras.folders, *checkpoint)
                                .find_path_or_name(fs::path(lora.filename).stem().string());
    if (!file.ok()) return file.error();
    use.push_back(fmt::format("{}:{}", file->string(), lora.scale));
  }
  options.loras.use.insert(options.loras.use.begin(), use.begin(), use.end());
  said = fmt::format("template '{}' is not built; drawing with {} and {} adapter{} at run time",
                     chosen->key, checkpoint->string(), use.size(), use.size() == 1 ? "" : "s");
  return {};
}

}  // namespace limner::cli
