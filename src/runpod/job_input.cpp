#include "runpod/job_input.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/quote.h"
#include "contract/request_fields.h"
#include "delivery/webhook_sender.h"

namespace limner::runpod {
namespace {

using contract::ModelCard;
using nlohmann::json;

constexpr std::size_t kLongestInput = std::size_t{1} << 20;

// Reads one input; each step notes what is wrong and goes on.
class InputReader {
 public:
  InputReader(const json& input, const InputContext& context)
      : context_(context), fields_(input, "", problems_) {}

  Result<JobInput> read() {
    JobInput made;
    read_picture(made.request.picture);
    fields_.read("stream", made.stream);
    fields_.read("progress", made.progress);
    fields_.read("model", made.request.model);
    const ModelCard* model = contract::find_model(fields_, made.request.model, context_.catalog);
    read_adapters(made.request, model);
    fields_.finish();
    if (model != nullptr) {
      contract::complete(
          fields_, made.request.picture, *model,
          {.most_pixels = context_.most_pixels, .random_seed = context_.random_seed});
    }
    if (problems_.empty()) return made;
    std::vector<std::string> wrong;
    for (const auto& [field, message] : problems_) {
      wrong.push_back(fmt::format("{} {}", field, message));
    }
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}", fmt::join(wrong, "; "))};
  }

 private:
  void read_picture(contract::GenerationRequest& picture) {
    fields_.also_known_as("steps", "num_inference_steps");
    fields_.also_known_as("guidance_scale", "guidance");
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
    fields_.read("num_images", picture.num_images);
    fields_.read("sampler", picture.sampler);
    fields_.read("schedule", picture.schedule);
    fields_.read("clip_skip", picture.clip_skip);
  }

  // A list of names and of objects, or a map from names to weights.
  void read_adapters(contract::JobRequest& request, const ModelCard* model) {
    const json* loras = fields_.take("loras");
    if (loras == nullptr) return;
    if (!loras->is_array() && !loras->is_object()) {
      return fields_.wrong("loras", "must be a list, or a map from names to weights");
    }
    const std::size_t most = context_.catalog.most_adapters;
    if (loras->size() > most) {
      return fields_.wrong("loras", fmt::format("must be at most {}, got {}", most, loras->size()));
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

  const InputContext& context_;
  std::vector<contract::FieldError> problems_;
  contract::Fields fields_;
};

}  // namespace

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

}  // namespace limner::runpod
