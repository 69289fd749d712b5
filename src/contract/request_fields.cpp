#include "contract/request_fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/quote.h"
#include "base/suggest.h"

namespace limner::contract {
namespace {

constexpr double kLargestWeight = 10.0;  // of an adapter, either way
constexpr std::size_t kMostNames = 10;   // told to who named none of them

template <typename Card>
std::string unknown(const std::string& wanted, const std::vector<Card>& cards) {
  std::vector<std::string> names;
  for (const Card& card : cards) names.push_back(card.name);
  const std::string near = did_you_mean(wanted.substr(0, 128), names);
  if (!near.empty() || names.empty()) return fmt::format("{} is not known{}", quote(wanted), near);
  if (names.size() > kMostNames) names.resize(kMostNames);
  return fmt::format("{} is not known; there are {}", quote(wanted), fmt::join(names, ", "));
}

void check_name(Fields& fields, const std::string& name, const Catalog& catalog,
                const ModelCard* model) {
  const AdapterCard* card = catalog.adapter(name);
  if (card == nullptr) return fields.wrong("name", unknown(name, catalog.adapters));
  if (!card->problem.empty()) {
    return fields.wrong("name", fmt::format("'{}' cannot be used: {}", name, card->problem));
  }
  if (model != nullptr && !card->family.empty() && card->family != model->family) {
    fields.wrong("name", fmt::format("'{}' is for models of the family {}, and {} is of {}", name,
                                     card->family, model->name, model->family));
  }
}

// Small digits: one spelling of a hash is enough for those behind.
void check_hash(Fields& fields, std::string& sha256) {
  if (sha256.empty()) return;
  if (sha256.size() != 64 ||
      sha256.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
    return fields.wrong("sha256", "must be 64 hexadecimal digits");
  }
  std::ranges::transform(sha256, sha256.begin(), [](char c) {
    return c >= 'A' && c <= 'F' ? static_cast<char>(c + ('a' - 'A')) : c;
  });
}

}  // namespace

const ModelCard* find_model(Fields& fields, std::string& model, const Catalog& catalog) {
  if (model.empty()) model = catalog.default_model;
  const ModelCard* card = catalog.model(model);
  if (card == nullptr) {
    fields.wrong("model", unknown(model, catalog.models));
  } else if (!card->problem.empty()) {
    fields.wrong("model", fmt::format("'{}' cannot be used: {}", card->name, card->problem));
    return nullptr;
  }
  return card;
}

AdapterChoice read_adapter(Fields& fields, const Catalog& catalog, const ModelCard* model,
                           const std::function<Result<void>(std::string_view)>& check_url) {
  AdapterChoice adapter;
  fields.read("name", adapter.name);
  fields.read("url", adapter.url);
  fields.read("weight", adapter.weight);
  fields.read("sha256", adapter.sha256);
  if (adapter.name.empty() == adapter.url.empty()) {
    fields.wrong("name", "or url is wanted, one of the two");
  } else if (!adapter.url.empty()) {
    if (const auto fits = check_url(adapter.url); !fits.ok()) {
      fields.wrong("url", field_message(fits.error()));
    }
  } else {
    check_name(fields, adapter.name, catalog, model);
  }
  if (!(std::abs(adapter.weight) <= kLargestWeight)) {
    fields.wrong("weight", fmt::format("must be between {} and {}, got {}", -kLargestWeight,
                                       kLargestWeight, adapter.weight));
  }
  check_hash(fields, adapter.sha256);
  fields.finish();
  return adapter;
}

std::optional<ValidRequest> complete(Fields& fields, GenerationRequest& picture,
                                     const ModelCard& model, const Completion& completion) {
  const auto valid = validate(picture, model.limits, completion.random_seed);
  for (const FieldError& error : valid.errors) fields.wrong(error.field, error.message);
  if (!valid.ok()) return std::nullopt;
  picture.width = valid.request->width();
  picture.height = valid.request->height();
  picture.steps = valid.request->steps();
  picture.guidance_scale = valid.request->guidance_scale();
  picture.seed = static_cast<std::int64_t>(valid.request->seed());
  const double pixels = static_cast<double>(*picture.width) * static_cast<double>(*picture.height) *
                        static_cast<double>(picture.num_images);
  if (pixels > static_cast<double>(completion.most_pixels)) {
    fields.wrong("num_images",
                 fmt::format("of {} x {} pixels are {} together; at most {} are allowed",
                             *picture.width, *picture.height, pixels, completion.most_pixels));
    return std::nullopt;
  }
  return valid.request;
}

std::string field_message(const Error& error) {
  const auto end = error.message.find("] ");
  return error.message.starts_with('[') && end != std::string::npos ? error.message.substr(end + 2)
                                                                    : error.message;
}

}  // namespace limner::contract
