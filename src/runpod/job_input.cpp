#include "runpod/job_input.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/quote.h"
#include "base/suggest.h"
#include "contract/request_fields.h"
#include "delivery/webhook_sender.h"
#include "runpod/prompt_cleaning.h"
#include "runpod/volume_folder.h"
#include "templates/template_choice.h"

namespace limner::runpod {
namespace {

using contract::ModelCard;
using nlohmann::json;

constexpr std::size_t kLongestInput = std::size_t{1} << 20;
constexpr std::size_t kLongestUser = 64;
constexpr std::size_t kLongestHeadshotPrompt = 2'000;  // bytes, cleaned
constexpr std::int64_t kHeadshotSteps = 25;
constexpr double kHeadshotGuidance = 7.5;
constexpr std::array kKinds = {JobKind::kGenerate, JobKind::kHeadshot};

bool is_user_id(std::string_view text) {
  const auto plain = [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  return !text.empty() && text.size() <= kLongestUser && plain(text.front()) &&
         std::ranges::all_of(text, [&](char c) { return plain(c) || c == '-' || c == '_'; });
}

// Reads one input; each step notes what is wrong and goes on.
class InputReader {
 public:
  InputReader(const json& input, const InputContext& context)
      : context_(context), fields_(input, "", problems_) {}

  Result<JobInput> read() {
    made_.kind = read_kind();
    read_action();
    if (!made_.lists_templates) read_drawing();
    end_fields();
    if (model_ != nullptr) complete();
    if (problems_.empty()) return std::move(made_);
    std::vector<std::string> wrong;
    for (const auto& [field, message] : problems_) {
      wrong.push_back(fmt::format("{} {}", field, message));
    }
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}", fmt::join(wrong, "; "))};
  }

 private:
  JobKind read_kind() {
    std::string given(name(context_.kind));
    fields_.read("kind", given);
    if (const auto kind = kind_named(given)) return *kind;
    std::vector<std::string> names;
    for (const JobKind kind : kKinds) names.emplace_back(name(kind));
    fields_.wrong("kind", fmt::format("must be one of {}, got {}{}", fmt::join(names, ", "),
                                      quote(given), did_you_mean(given.substr(0, 64), names)));
    return context_.kind;
  }

  void read_action() {
    if (made_.kind != JobKind::kGenerate) return;
    std::string action;
    if (!read_text("action", action)) return;
    made_.lists_templates = action == "list_templates";
    if (!made_.lists_templates) {
      fields_.wrong("action", fmt::format("must be list_templates, got {}", quote(action)));
    }
  }

  // False: absent, or no text, which is noted.
  bool read_text(const char* name, std::string& text) {
    const std::size_t before = problems_.size();
    fields_.read(name, text);
    return fields_.has(name) && problems_.size() == before;
  }

  void read_drawing() {
    read_picture(made_.request.picture);
    if (made_.kind == JobKind::kHeadshot) {
      read_headshot();
    } else {
      fields_.read("stream", made_.stream);
    }
    fields_.read("progress", made_.progress);
    model_ = read_model(made_.request);
    read_adapters(made_.request, model_);
    read_files();
  }

  void read_picture(contract::GenerationRequest& picture) {
    fields_.also_known_as("steps", "num_inference_steps");
    fields_.also_known_as("guidance_scale", "guidance");
    fields_.also_known_as("guidance_scale", "cfg_scale");
    fields_.also_known_as("num_images", "num_images_per_prompt");
    fields_.also_known_as("sampler", "scheduler");
    if (!fields_.has("prompt")) fields_.wrong("prompt", "is wanted");
    fields_.read("prompt", picture.prompt);
    fields_.read("negative_prompt", picture.negative_prompt);
    fields_.read("width", picture.width);
    fields_.read("height", picture.height);
    fields_.read("steps", picture.steps);
    fields_.read("guidance_scale", picture.guidance_scale);
    fields_.read("seed", picture.seed);
    if (made_.kind == JobKind::kGenerate) fields_.read("num_images", picture.num_images);
    fields_.read("sampler", picture.sampler);
    fields_.read("schedule", picture.schedule);
    fields_.read("clip_skip", picture.clip_skip);
  }

  void read_headshot() {
    if (!fields_.has("user_id")) fields_.wrong("user_id", "is wanted");
    if (read_text("user_id", made_.user_id) && !is_user_id(made_.user_id)) {
      fields_.wrong("user_id",
                    fmt::format("must be 1 to {} letters, digits, '-' and '_', the first of them a "
                                "letter or digit (a UUID is one), got {}",
                                kLongestUser, quote(made_.user_id)));
    }
    clean("prompt", made_.request.picture.prompt);
    if (fields_.has("prompt") && made_.request.picture.prompt.empty()) {
      fields_.wrong("prompt", "must hold something that can be seen");
    }
    clean("negative_prompt", made_.request.picture.negative_prompt);
  }

  void clean(const char* field, std::string& prompt) {
    auto cleaned = clean_prompt(prompt);
    if (!cleaned.ok()) return fields_.wrong(field, contract::field_message(cleaned.error()));
    prompt = std::move(*cleaned);
    if (prompt.size() > kLongestHeadshotPrompt) {
      fields_.wrong(field, fmt::format("must be at most {} bytes, got {}", kLongestHeadshotPrompt,
                                       prompt.size()));
    }
  }

  const ModelCard* read_model(contract::JobRequest& request) {
    fields_.read("model", request.model);
    fields_.read("template", request.template_name);
    if (!request.template_name.empty() && !request.model.empty()) {
      fields_.wrong("template", "and model both name a model; leave one of them out");
      return nullptr;
    }
    if (request.template_name.empty() && request.model.empty() && context_.templates != nullptr) {
      request.template_name = context_.templates->default_template;
    }
    if (!request.template_name.empty()) {
      const auto done = templates::choose_template(request, context_.templates, context_.catalog);
      if (!done.ok()) {
        fields_.wrong("template", contract::field_message(done.error()));
        return nullptr;
      }
    }
    return contract::find_model(fields_, request.model, context_.catalog);
  }

  // A list of names and of objects, or a map from names to weights; beside those of the template.
  void read_adapters(contract::JobRequest& request, const ModelCard* model) {
    const json* loras = fields_.take("loras");
    if (loras == nullptr) return;
    if (!loras->is_array() && !loras->is_object()) {
      return fields_.wrong("loras", "must be a list, or a map from names to weights");
    }
    const std::size_t most = context_.catalog.most_adapters;
    const std::size_t asked = request.adapters.size() + loras->size();
    if (asked > most) {
      return fields_.wrong(
          "loras", fmt::format("must be at most {} with the template's, got {}", most, asked));
    }
    std::size_t index = 0;
    for (const auto& [key, value] : loras->items()) {
      const std::string place =
          loras->is_array() ? fmt::format("loras[{}]", index) : fmt::format("loras.{}", quote(key));
      ++index;
      json entry = value;
      if (loras->is_object()) {
        entry = named(key);
        entry["weight"] = value;
      } else if (value.is_string()) {
        entry = named(value.get_ref<const std::string&>());
      } else if (!value.is_object()) {
        fields_.wrong(place, "must be a name, an https URL, or an object");
        continue;
      }
      request.adapters.push_back(read_adapter(entry, place + ".", model));
    }
  }

  static json named(const std::string& text) {
    json entry = json::object();
    entry[text.starts_with("https://") || text.starts_with("http://") ? "url" : "name"] = text;
    return entry;
  }

  contract::AdapterChoice read_adapter(const json& object, std::string path,
                                       const ModelCard* model) {
    contract::Fields fields(object, std::move(path), problems_);
    fields.also_known_as("weight", "scale");
    return contract::read_adapter(fields, context_.catalog, model, [&](std::string_view url) {
      return delivery::check_webhook_url(url, context_.network);
    });
  }

  // ---- files on the volume

  void read_files() {
    read_path("image", made_.image);
    read_path("mask", made_.mask);
    if (!made_.mask.empty() && made_.image.empty()) fields_.wrong("mask", "wants an image, too");
    read_path("output_path", made_.output_path);
    made_.include_images = made_.output_path.empty();
    if (made_.kind == JobKind::kGenerate) fields_.read("include_images", made_.include_images);
    if (made_.output_path.empty()) {
      if (!made_.include_images) fields_.wrong("include_images", "may be false with output_path");
      return;
    }
    if (!made_.output_path.ends_with(".png")) {
      fields_.wrong("output_path", "must end with .png: pictures are PNGs");
    }
    const bool apart = made_.output_path.find("{index}") != std::string::npos ||
                       made_.output_path.find("{seed}") != std::string::npos;
    if (made_.request.picture.num_images > 1 && !apart) {
      fields_.wrong("output_path", "must hold {index} or {seed} where there are several pictures");
    }
  }

  void read_path(const char* name, std::string& path) {
    if (!read_text(name, path)) return;
    if (const auto fits = check_volume_path(path); !fits.ok()) {
      fields_.wrong(name, fits.error().message);
    }
  }

  // ---- the end

  void end_fields() {
    if (context_.report_unknown) {
      made_.unknown_fields = fields_.unknown();
    } else {
      fields_.finish();
    }
  }

  void complete() {
    contract::GenerationRequest& picture = made_.request.picture;
    if (made_.kind == JobKind::kHeadshot) {
      picture.steps = picture.steps.value_or(kHeadshotSteps);
      picture.guidance_scale = picture.guidance_scale.value_or(kHeadshotGuidance);
    }
    contract::complete(fields_, picture, *model_,
                       {.most_pixels = context_.most_pixels, .random_seed = context_.random_seed});
  }

  const InputContext& context_;
  std::vector<contract::FieldError> problems_;
  contract::Fields fields_;
  JobInput made_;
  const ModelCard* model_ = nullptr;
};

void fill(std::string& text, std::string_view place, const std::string& value) {
  for (std::size_t at = text.find(place); at != std::string::npos; at = text.find(place, at)) {
    text.replace(at, place.size(), value);
    at += value.size();
  }
}

}  // namespace

std::string_view name(JobKind kind) {
  return kind == JobKind::kGenerate ? "generate" : "headshot";
}

std::optional<JobKind> kind_named(std::string_view text) {
  for (const JobKind kind : kKinds) {
    if (name(kind) == text) return kind;
  }
  return std::nullopt;
}

Result<JobInput> read_input(const json& input, const InputContext& context) {
  if (!input.is_object()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("input must be an object, got {}", quote(input.dump()))};
  }
  if (input.dump().size() > kLongestInput) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("input must be at most {} bytes of JSON", kLongestInput)};
  }
  return InputReader(input, context).read();
}

std::string output_path_of(const JobInput& input, std::int64_t index, std::uint64_t seed) {
  std::string path = input.output_path;
  fill(path, "{index}", std::to_string(index));
  fill(path, "{seed}", std::to_string(seed));
  return path;
}

}  // namespace limner::runpod
