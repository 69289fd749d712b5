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
#include "base/suggest.h"
#include "delivery/webhook_sender.h"

namespace limner::runpod {
namespace {

using contract::AdapterChoice;
using contract::ModelCard;
using nlohmann::json;

constexpr double kLargestWeight = 10.0;  // of an adapter, either way
constexpr std::size_t kLongestInput = std::size_t{1} << 20;

// An error's message without the place "[webhook] " at its front.
std::string plain(const Error& error) {
  const auto end = error.message.find("] ");
  return error.message.starts_with('[') && end != std::string::npos ? error.message.substr(end + 2)
                                                                    : error.message;
}

// The members of an object, taken one by one; what is wrong with them is collected. Null counts as
// absent.
class Members {
 public:
  Members(const json& object, std::string path, std::vector<std::string>& wrong)
      : object_(object), path_(std::move(path)), wrong_(wrong) {}

  // By its name, or by another one that clients of other workers know.
  const json* take(const char* name, const char* other = nullptr) {
    const json* value = find(name);
    if (other == nullptr) return value;
    const json* second = find(other);
    if (value != nullptr && second != nullptr) {
      wrong(other, fmt::format("and {} are one setting; leave one of them out", name));
    }
    return value != nullptr ? value : second;
  }

  template <typename Variable>
  void read(Variable& variable, const char* name, const char* other = nullptr) {
    const json* value = take(name, other);
    if (value == nullptr || assign(*value, variable)) return;
    wrong(name, fmt::format("must be {}, got {}", kind_wanted(variable), quote(value->dump())));
  }

  void wrong(std::string_view name, std::string_view message) {
    wrong_.push_back(fmt::format("{}{} {}", path_, name, message));
  }

  void finish() {
    for (const auto& [name, value] : object_.items()) {
      if (std::ranges::find(known_, name) != known_.end()) continue;
      wrong(name.size() <= 64 ? name : quote(name),
            fmt::format("is not known{}", did_you_mean(name.substr(0, 64), known_)));
    }
  }

 private:
  const json* find(const char* name) {
    known_.emplace_back(name);
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  static bool assign(const json& value, std::string& text) {
    if (value.is_string()) text = value.get<std::string>();
    return value.is_string();
  }
  static bool assign(const json& value, bool& yes) {
    if (value.is_boolean()) yes = value.get<bool>();
    return value.is_boolean();
  }
  static bool assign(const json& value, double& number) {
    if (value.is_number()) number = value.get<double>();
    return value.is_number();
  }
  static bool assign(const json& value, std::int64_t& number) {
    constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() && value.get<std::uint64_t>() > kMost)) {
      return false;
    }
    number = value.get<std::int64_t>();
    return true;
  }
  template <typename Value>
  static bool assign(const json& value, std::optional<Value>& variable) {
    Value read{};
    if (!assign(value, read)) return false;
    variable = read;
    return true;
  }

  static const char* kind_wanted(const std::string&) { return "a string"; }
  static const char* kind_wanted(bool) { return "true or false"; }
  static const char* kind_wanted(double) { return "a number"; }
  static const char* kind_wanted(std::int64_t) { return "an integer"; }
  template <typename Value>
  static const char* kind_wanted(const std::optional<Value>&) {
    return kind_wanted(Value{});
  }

  const json& object_;
  const std::string path_;
  std::vector<std::string>& wrong_;
  std::vector<std::string> known_;
};

// Reads one input; each step notes what is wrong and goes on.
class InputReader {
 public:
  InputReader(const json& input, const InputContext& context)
      : context_(context), members_(input, "", wrong_) {}

  Result<JobInput> read() {
    JobInput made;
    read_picture(made.request.picture);
    members_.read(made.stream, "stream");
    members_.read(made.progress, "progress");
    const ModelCard* model = read_model(made.request);
    read_adapters(made.request, model);
    members_.finish();
    if (model != nullptr) fill_in(made.request.picture, *model);
    if (wrong_.empty()) return made;
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}", fmt::join(wrong_, "; "))};
  }

 private:
  void read_picture(contract::GenerationRequest& picture) {
    const json* prompt = members_.take("prompt");
    if (prompt == nullptr) {
      members_.wrong("prompt", "is wanted");
    } else {
      members_.read(picture.prompt, "prompt");
    }
    members_.read(picture.negative_prompt, "negative_prompt");
    members_.read(picture.width, "width");
    members_.read(picture.height, "height");
    members_.read(picture.steps, "steps", "num_inference_steps");
    members_.read(picture.guidance_scale, "guidance_scale", "guidance");
    members_.read(picture.seed, "seed");
    members_.read(picture.num_images, "num_images", "num_images_per_prompt");
    members_.read(picture.sampler, "sampler", "scheduler");
    members_.read(picture.schedule, "schedule");
    members_.read(picture.clip_skip, "clip_skip");
  }

  const ModelCard* read_model(contract::JobRequest& request) {
    members_.read(request.model, "model");
    if (request.model.empty()) request.model = context_.catalog.default_model;
    const ModelCard* card = context_.catalog.model(request.model);
    if (card == nullptr) {
      members_.wrong("model", unknown(request.model, context_.catalog.models));
    } else if (!card->problem.empty()) {
      members_.wrong("model", fmt::format("'{}' cannot be used: {}", card->name, card->problem));
      return nullptr;
    }
    return card;
  }

  template <typename Card>
  static std::string unknown(const std::string& wanted, const std::vector<Card>& cards) {
    std::vector<std::string> names;
    for (const Card& card : cards) names.push_back(card.name);
    return fmt::format("{} is not known{}", quote(wanted),
                       did_you_mean(wanted.substr(0, 128), names));
  }

  // A list of names and of objects, or a map from names to weights.
  void read_adapters(contract::JobRequest& request, const ModelCard* model) {
    const json* loras = members_.take("loras");
    if (loras == nullptr) return;
    if (!loras->is_array() && !loras->is_object()) {
      return members_.wrong("loras", "must be a list, or a map from names to weights");
    }
    const std::size_t most = context_.catalog.most_adapters;
    if (loras->size() > most) {
      return members_.wrong("loras",
                            fmt::format("must be at most {}, got {}", most, loras->size()));
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
        members_.wrong(place, "must be a name, an https URL, or an object");
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

  AdapterChoice read_adapter(const json& object, std::string path, const ModelCard* model) {
    Members members(object, std::move(path), wrong_);
    AdapterChoice adapter;
    members.read(adapter.name, "name");
    members.read(adapter.url, "url");
    members.read(adapter.weight, "weight", "scale");
    members.read(adapter.sha256, "sha256");
    if (adapter.name.empty() == adapter.url.empty()) {
      members.wrong("name", "or url is wanted, one of the two");
    } else if (!adapter.url.empty()) {
      const auto reachable = delivery::check_webhook_url(adapter.url, context_.network);
      if (!reachable.ok()) members.wrong("url", plain(reachable.error()));
    } else {
      check_adapter(members, adapter.name, model);
    }
    if (!(std::abs(adapter.weight) <= kLargestWeight)) {
      members.wrong("weight", fmt::format("must be between {} and {}, got {}", -kLargestWeight,
                                          kLargestWeight, adapter.weight));
    }
    const bool hash = adapter.sha256.size() == 64 &&
                      adapter.sha256.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (!adapter.sha256.empty() && !hash) {
      members.wrong("sha256", "must be 64 hexadecimal digits in lower case");
    }
    members.finish();
    return adapter;
  }

  void check_adapter(Members& members, const std::string& name, const ModelCard* model) {
    const contract::AdapterCard* card = context_.catalog.adapter(name);
    if (card == nullptr) return members.wrong("name", unknown(name, context_.catalog.adapters));
    if (!card->problem.empty()) {
      return members.wrong("name", fmt::format("'{}' cannot be used: {}", name, card->problem));
    }
    if (model != nullptr && !card->family.empty() && card->family != model->family) {
      members.wrong("name", fmt::format("'{}' is for models of the family {}, and {} is of {}",
                                        name, card->family, model->name, model->family));
    }
  }

  void fill_in(contract::GenerationRequest& picture, const ModelCard& model) {
    const auto valid = contract::validate(picture, model.limits, context_.random_seed);
    for (const contract::FieldError& field : valid.errors) {
      members_.wrong(field.field, field.message);
    }
    if (!valid.ok()) return;
    picture.width = valid.request->width();
    picture.height = valid.request->height();
    picture.steps = valid.request->steps();
    picture.guidance_scale = valid.request->guidance_scale();
    picture.seed = static_cast<std::int64_t>(valid.request->seed());
    const double pixels = static_cast<double>(*picture.width) *
                          static_cast<double>(*picture.height) *
                          static_cast<double>(picture.num_images);
    if (pixels > static_cast<double>(context_.most_pixels)) {
      members_.wrong("num_images",
                     fmt::format("of {} x {} pixels are {} together; at most {} are allowed",
                                 *picture.width, *picture.height, pixels, context_.most_pixels));
    }
  }

  const InputContext& context_;
  std::vector<std::string> wrong_;
  Members members_;
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
