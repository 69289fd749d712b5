#include "contract/job_request.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

namespace limner::contract {
namespace {

using Json = nlohmann::json;

// One description of the fields serves both directions: Writer puts them into an object, Reader
// takes them out of one. A field that is missing keeps its default (an older version wrote the
// text); one that is unknown is refused (a newer one did, and meant something by it).
class Writer {
 public:
  Json object = Json::object();
  template <typename Value>
  void operator()(const char* name, const Value& value) {
    object[name] = encode(value);
  }

 private:
  template <typename Value>
  static Json encode(const Value& value);
};

class Reader {
 public:
  explicit Reader(const Json& object) : object_(object) {
    if (!object.is_object()) throw std::invalid_argument("an object is wanted");
  }
  template <typename Value>
  void operator()(const char* name, Value& value) {
    const auto found = object_.find(name);
    if (found == object_.end()) return;
    decode(*found, value);
    ++seen_;
  }
  void finish() const {
    if (object_.size() != seen_) throw std::invalid_argument("a field nobody knows");
  }

 private:
  template <typename Value>
  static void decode(const Json& json, Value& value);
  const Json& object_;
  std::size_t seen_ = 0;
};

template <typename Visit>
void fields(Visit& visit, auto& micro, const MicroConditioning*) {
  visit("original_width", micro.original_width);
  visit("original_height", micro.original_height);
  visit("crop_left", micro.crop_left);
  visit("crop_top", micro.crop_top);
  visit("target_width", micro.target_width);
  visit("target_height", micro.target_height);
}

template <typename Visit>
void fields(Visit& visit, auto& picture, const GenerationRequest*) {
  visit("prompt", picture.prompt);
  visit("negative_prompt", picture.negative_prompt);
  visit("width", picture.width);
  visit("height", picture.height);
  visit("steps", picture.steps);
  visit("guidance_scale", picture.guidance_scale);
  visit("guidance_rescale", picture.guidance_rescale);
  visit("sampler", picture.sampler);
  visit("schedule", picture.schedule);
  visit("seed", picture.seed);
  visit("num_images", picture.num_images);
  visit("clip_skip", picture.clip_skip);
  visit("eta", picture.eta);
  visit("micro", picture.micro);
  visit("prompt_syntax", picture.prompt_syntax);
  visit("long_prompt", picture.long_prompt);
  visit("weighting", picture.weighting);
  visit("extract_negative", picture.extract_negative);
}

template <typename Visit>
void fields(Visit& visit, auto& adapter, const AdapterChoice*) {
  visit("name", adapter.name);
  visit("url", adapter.url);
  visit("weight", adapter.weight);
  visit("sha256", adapter.sha256);
}

template <typename Visit>
void fields(Visit& visit, auto& output, const OutputChoice*) {
  visit("format", output.format);
  visit("quality", output.quality);
  visit("thumbnails", output.thumbnails);
  visit("retention", output.retention);
}

template <typename Visit>
void fields(Visit& visit, auto& webhook, const WebhookChoice*) {
  visit("url", webhook.url);
  visit("events", webhook.events);
  visit("secret", webhook.secret);
}

template <typename Visit>
void fields(Visit& visit, auto& request, const JobRequest*) {
  visit("picture", request.picture);
  visit("model", request.model);
  visit("template", request.template_name);
  visit("adapters", request.adapters);
  visit("output", request.output);
  visit("webhook", request.webhook);
  visit("metadata", request.metadata);
  visit("traceparent", request.traceparent);
}

template <typename Visit>
void fields(Visit& visit, auto& image, const StoredImage*) {
  visit("key", image.key);
  visit("format", image.format);
  visit("width", image.width);
  visit("height", image.height);
  visit("bytes", image.bytes);
  visit("sha256", image.sha256);
}

template <typename Visit>
void fields(Visit& visit, auto& artifact, const Artifact*) {
  visit("image", artifact.image);
  visit("thumbnails", artifact.thumbnails);
  visit("seed", artifact.seed);
  visit("index", artifact.index);
}

template <typename Visit>
void fields(Visit& visit, auto& timings, const Timings*) {
  visit("queue", timings.queue);
  visit("encode", timings.encode);
  visit("denoise", timings.denoise);
  visit("decode", timings.decode);
  visit("post", timings.post);
  visit("deliver", timings.deliver);
}

template <typename Visit>
void fields(Visit& visit, auto& result, const JobResult*) {
  visit("images", result.images);
  visit("model_name", result.model_name);
  visit("model_hash", result.model_hash);
  visit("timings", result.timings);
  visit("steps", result.steps);
  visit("warnings", result.warnings);
}

template <typename Value>
concept Structure = requires(Writer& writer, const Value& value) {
  fields(writer, value, static_cast<const Value*>(nullptr));
};

template <typename Element>
constexpr bool kIsOptional = false;
template <typename Element>
constexpr bool kIsOptional<std::optional<Element>> = true;
template <typename Element>
constexpr bool kIsVector = false;
template <typename Element>
constexpr bool kIsVector<std::vector<Element>> = true;

template <typename Value>
Json Writer::encode(const Value& value) {
  if constexpr (Structure<Value>) {
    Writer writer;
    fields(writer, value, static_cast<const Value*>(nullptr));
    return std::move(writer.object);
  } else if constexpr (kIsOptional<Value>) {
    return value ? encode(*value) : Json();
  } else if constexpr (kIsVector<Value>) {
    Json list = Json::array();
    for (const auto& element : value) list.push_back(encode(element));
    return list;
  } else {
    return value;
  }
}

template <typename Value>
void Reader::decode(const Json& json, Value& value) {
  if constexpr (Structure<Value>) {
    Reader reader(json);
    fields(reader, value, static_cast<const Value*>(nullptr));
    reader.finish();
  } else if constexpr (kIsOptional<Value>) {
    if (!json.is_null()) decode(json, value.emplace());
  } else if constexpr (kIsVector<Value>) {
    for (const Json& element : json) decode(element, value.emplace_back());
  } else {
    json.get_to(value);
  }
}

template <typename Value>
std::string write(const Value& value) {
  Writer writer;
  fields(writer, value, static_cast<const Value*>(nullptr));
  return writer.object.dump();
}

template <typename Value>
Result<Value> read(std::string_view text, std::string_view what) {
  try {
    const Json json = Json::parse(text);
    Value value;
    Reader reader(json);
    fields(reader, value, static_cast<const Value*>(nullptr));
    reader.finish();
    return value;
  } catch (const std::exception& error) {
    return Error{ErrorCode::kInternal,
                 fmt::format("[contract.{}] a stored text cannot be read: {}", what, error.what())};
  }
}

}  // namespace

const std::vector<std::string>& webhook_events() {
  static const std::vector<std::string> names = {"queued",  "started", "progress", "completed",
                                                 "blocked", "failed",  "canceled", "expired"};
  return names;
}

std::string to_text(const JobRequest& request) {
  return write(request);
}
std::string to_text(const JobResult& result) {
  return write(result);
}
std::string to_text(const Artifact& artifact) {
  return write(artifact);
}

Result<JobRequest> job_request_from_text(std::string_view text) {
  return read<JobRequest>(text, "job_request");
}
Result<JobResult> job_result_from_text(std::string_view text) {
  return read<JobResult>(text, "job_result");
}
Result<Artifact> artifact_from_text(std::string_view text) {
  return read<Artifact>(text, "artifact");
}

}  // namespace limner::contract
