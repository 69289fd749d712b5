#include "gateway/api_v1/generation_body.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/quote.h"
#include "contract/job_cost.h"
#include "contract/request_fields.h"
#include "delivery/crypto.h"
#include "delivery/object_key.h"
#include "delivery/webhook_sender.h"
#include "delivery/webhook_signature.h"
#include "gateway/api_v1/answers.h"
#include "prompt/negative_section.h"
#include "prompt/parsed_prompt.h"
#include "templates/template_choice.h"

namespace limner::gateway::api_v1 {
namespace {

using contract::Fields;
using contract::GenerationRequest;
using contract::ModelCard;
using http::FieldProblem;
using nlohmann::json;

constexpr std::size_t kMostThumbnails = 8;
constexpr std::int64_t kSmallestThumbnail = 16, kLargestThumbnail = 2048;

std::string join(const std::vector<std::string>& names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

// Reads one body; each step notes what is wrong and goes on.
class BodyReader {
 public:
  BodyReader(const json& body, const BodyContext& context)
      : context_(context), fields_(body, "", problems_) {}

  GenerationBody read() {
    GenerationBody made;
    read_picture(made.request.picture);
    const ModelCard* model = read_model(made.request);
    read_adapters(made.request, model);
    read_output(made);
    read_webhook(made.request.webhook);
    read_metadata(made.request.metadata);
    refuse_inputs();
    fields_.finish();
    if (model != nullptr) check_limits(made, *model);
    if (problems_.empty()) return made;
    throw http::ProblemFailure(
        {.status = http::beast_http::status::unprocessable_entity,
         .code = "invalid_argument",
         .detail = problems_.size() == 1
                       ? fmt::format("{} {}.", problems_[0].field, problems_[0].message)
                       : fmt::format("{} fields are wrong.", problems_.size()),
         .fields = std::move(problems_)});
  }

 private:
  void read_picture(GenerationRequest& picture) {
    if (!fields_.has("prompt")) fields_.wrong("prompt", "is wanted");
    fields_.read("prompt", picture.prompt);
    fields_.read("negative_prompt", picture.negative_prompt);
    fields_.read("prompt_syntax", picture.prompt_syntax);
    fields_.read("long_prompt", picture.long_prompt);
    fields_.read("weighting", picture.weighting);
    fields_.read("extract_negative", picture.extract_negative);
    fields_.read("width", picture.width);
    fields_.read("height", picture.height);
    fields_.read("steps", picture.steps);
    fields_.read("guidance_scale", picture.guidance_scale);
    fields_.read("guidance_rescale", picture.guidance_rescale);
    fields_.read("sampler", picture.sampler);
    fields_.read("schedule", picture.schedule);
    fields_.read("seed", picture.seed);
    fields_.read("num_images", picture.num_images);
    fields_.read("clip_skip", picture.clip_skip);
    fields_.read("eta", picture.eta);
    read_pair("original_size", picture.micro.original_width, picture.micro.original_height);
    read_pair("crop", picture.micro.crop_left, picture.micro.crop_top);
    read_pair("target_size", picture.micro.target_width, picture.micro.target_height);
  }

  void read_pair(const char* name, std::optional<std::int64_t>& first,
                 std::optional<std::int64_t>& second) {
    const json* pair = fields_.array(name, 2);
    if (pair == nullptr) return;
    constexpr std::int64_t kMost = 65536;
    const bool fits = pair->size() == 2 && std::all_of(pair->begin(), pair->end(), [](auto& side) {
                        return side.is_number_integer() && side >= 0 && side <= kMost;
                      });
    if (!fits) return fields_.wrong(name, fmt::format("must be two integers from 0 to {}", kMost));
    first = (*pair)[0].get<std::int64_t>();
    second = (*pair)[1].get<std::int64_t>();
  }

  // The model's card; nullptr where there is none to be used, which is noted.
  const ModelCard* read_model(contract::JobRequest& request) {
    fields_.read("model", request.model);
    fields_.read("template", request.template_name);
    const bool by_template = !request.template_name.empty();
    if (by_template && !request.model.empty()) {
      fields_.wrong("template", "and model both name a model; leave one of them out");
      return nullptr;
    }
    if (by_template) {
      const auto done = templates::choose_template(request, context_.templates, context_.catalog);
      if (!done) {
        fields_.wrong("template", contract::field_message(done.error()));
        return nullptr;
      }
    }
    return contract::find_model(fields_, request.model, context_.catalog);
  }

  void read_adapters(contract::JobRequest& request, const ModelCard* model) {
    const std::size_t most = context_.catalog.most_adapters;
    const json* list = fields_.array("loras", most);
    if (list == nullptr) return;
    if (request.adapters.size() + list->size() > most) {
      fields_.wrong("loras", fmt::format("must be at most {} with the template's {}, got {}", most,
                                         request.adapters.size(), list->size()));
      return;
    }
    for (std::size_t index = 0; index < list->size(); ++index) {
      const std::string name = fmt::format("loras[{}]", index);
      if (!(*list)[index].is_object()) {
        fields_.wrong(name, "must be an object");
        continue;
      }
      Fields fields((*list)[index], name + ".", problems_);
      request.adapters.push_back(
          contract::read_adapter(fields, context_.catalog, model, [&](std::string_view url) {
            return delivery::check_webhook_url(url, context_.network);
          }));
    }
  }

  void read_output(GenerationBody& made) {
    const json* object = fields_.object("output");
    if (object == nullptr) return;
    contract::OutputChoice& output = made.request.output;
    Fields fields(*object, "output.", problems_);
    made.names_format = fields.has("format");
    fields.read("format", output.format);
    std::int64_t quality = output.quality;
    fields.read("quality", quality);
    fields.read("retention", output.retention);
    static const std::vector<std::string> kFormats = {"png", "jpeg", "webp", "avif"};
    if (std::find(kFormats.begin(), kFormats.end(), output.format) == kFormats.end()) {
      fields.wrong("format",
                   fmt::format("must be one of {}, got {}", join(kFormats), quote(output.format)));
    }
    if (quality < 1 || quality > 100) {
      fields.wrong("quality", fmt::format("must be between 1 and 100, got {}", quality));
    } else {
      output.quality = static_cast<int>(quality);
    }
    if (const auto known = delivery::retention_from_name(output.retention); !known.ok()) {
      fields.wrong("retention", contract::field_message(known.error()));
    }
    if (const json* sides = fields.array("thumbnails", kMostThumbnails)) {
      read_thumbnails(fields, *sides, output.thumbnails);
    }
    fields.finish();
  }

  static void read_thumbnails(Fields& fields, const json& sides, std::vector<std::int64_t>& into) {
    for (const json& side : sides) {
      if (side.is_number_integer() && side >= kSmallestThumbnail && side <= kLargestThumbnail) {
        into.push_back(side.get<std::int64_t>());
        continue;
      }
      return fields.wrong("thumbnails", fmt::format("must be integers from {} to {}, in pixels",
                                                    kSmallestThumbnail, kLargestThumbnail));
    }
  }

  void read_webhook(contract::WebhookChoice& webhook) {
    const json* object = fields_.object("webhook");
    if (object == nullptr) return;
    Fields fields(*object, "webhook.", problems_);
    fields.read("url", webhook.url);
    fields.read("secret", webhook.secret);
    if (webhook.url.empty()) {
      fields.wrong("url", "is wanted");
    } else if (const auto fits = delivery::check_webhook_url(webhook.url, context_.network);
               !fits) {
      fields.wrong("url", contract::field_message(fits.error()));
    }
    if (!webhook.secret.empty()) {
      const auto secret = delivery::WebhookSecret::parse(webhook.secret);
      if (!secret.ok()) fields.wrong("secret", contract::field_message(secret.error()));
    }
    fields.read("events", webhook.events, contract::webhook_events());
    fields.finish();
  }

  void read_metadata(std::string& metadata) {
    const json* given = fields_.take("metadata");
    if (given == nullptr) return;
    metadata = given->dump();
    if (metadata.size() > context_.limits.most_metadata) {
      fields_.wrong("metadata", fmt::format("must be at most {} bytes of JSON, got {}",
                                            context_.limits.most_metadata, metadata.size()));
    }
  }

  void refuse_inputs() {
    for (const char* name : {"image", "mask", "strength", "controls"}) {
      if (fields_.take(name) != nullptr) fields_.wrong(name, "is not supported by this version");
    }
  }

  // Fills in what the client left to the model.
  void check_limits(GenerationBody& made, const ModelCard& model) {
    GenerationRequest& picture = made.request.picture;
    const auto valid = contract::complete(
        fields_, picture, model,
        {.most_pixels = context_.limits.most_pixels, .random_seed = context_.random_seed});
    if (!valid) return;
    made.job_class = contract::job_class(model.name, *valid);
    made.work = contract::job_work(*valid);
    check_prompt(made.request, *valid);
  }

  // Adapters that the prompt names count as those of the list do.
  void check_prompt(const contract::JobRequest& request, const contract::ValidRequest& valid) {
    prompt::PromptPair pair{valid.prompt(), valid.negative_prompt()};
    if (valid.extract_negative()) pair = prompt::extract_negative(pair.prompt, pair.negative);
    const auto parsed = prompt::parse(pair.prompt, {.syntax = valid.prompt_options().syntax});
    if (!parsed.ok()) return fields_.wrong("prompt", contract::field_message(parsed.error()));
    const std::size_t named = parsed->loras.size(), listed = request.adapters.size();
    if (named > 0 && named + listed > context_.catalog.most_adapters) {
      fields_.wrong("prompt", fmt::format("names {} adapters, and the request {} beside it; at "
                                          "most {} together are allowed",
                                          named, listed, context_.catalog.most_adapters));
    }
  }

  const BodyContext& context_;
  std::vector<FieldProblem> problems_;
  Fields fields_;
};

}  // namespace

GenerationBody read_generation_body(std::string_view body, const BodyContext& context) {
  const json object = parse_object(body, context.limits.most_bytes);
  GenerationBody made = BodyReader(object, context).read();
  made.fingerprint = delivery::sha256_hex(delivery::bytes_of(object.dump()));
  return made;
}

}  // namespace limner::gateway::api_v1
