#include "gateway/api_v1/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/json.h"
#include "base/quote.h"
#include "base/suggest.h"

namespace limner::gateway::api_v1 {
namespace {

using http::ProblemFailure;
using nlohmann::json;

std::string_view kind_of(const json& value) {
  switch (value.type()) {
    case json::value_t::object:
      return "an object";
    case json::value_t::array:
      return "an array";
    case json::value_t::string:
      return "a string";
    case json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    case json::value_t::number_float:
      return "a number with a fraction or beyond 64 bits";
    default:
      return "a number";
  }
}

bool fits_integer(const json& value) {
  if (!value.is_number_integer()) return false;
  return !value.is_number_unsigned() ||
         value.get<std::uint64_t>() <=
             static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
}

}  // namespace

const json* Fields::take(const char* name) {
  known_.emplace_back(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool Fields::has(std::string_view name) const {
  const auto found = object_.find(name);
  return found != object_.end() && !found->is_null();
}

void Fields::wrong(std::string_view name, std::string message) {
  problems_.push_back({path_ + std::string(name), std::move(message)});
}

void Fields::want(const char* name, std::string_view kind, const json& got) {
  wrong(name, fmt::format("must be {}, got {}", kind, kind_of(got)));
}

void Fields::read(const char* name, std::string& text) {
  const json* value = take(name);
  if (value == nullptr) return;
  if (!value->is_string()) return want(name, "a string", *value);
  text = value->get<std::string>();
}

void Fields::read(const char* name, bool& yes) {
  const json* value = take(name);
  if (value == nullptr) return;
  if (!value->is_boolean()) return want(name, "true or false", *value);
  yes = value->get<bool>();
}

template <typename Number, typename Variable>
void Fields::read_number(const char* name, std::string_view kind, Variable& variable) {
  const json* value = take(name);
  if (value == nullptr) return;
  const bool fits =
      std::is_same_v<Number, std::int64_t> ? fits_integer(*value) : value->is_number();
  if (!fits) return want(name, kind, *value);
  variable = value->get<Number>();
}

void Fields::read(const char* name, double& number) {
  read_number<double>(name, "a number", number);
}
void Fields::read(const char* name, std::optional<double>& number) {
  read_number<double>(name, "a number", number);
}
void Fields::read(const char* name, std::int64_t& number) {
  read_number<std::int64_t>(name, "an integer", number);
}
void Fields::read(const char* name, std::optional<std::int64_t>& number) {
  read_number<std::int64_t>(name, "an integer", number);
}

void Fields::read(const char* name, std::vector<std::string>& names,
                  const std::vector<std::string>& known) {
  const json* list = array(name, known.size());
  if (list == nullptr) return;
  for (const json& entry : *list) {
    const std::string text = entry.is_string() ? entry.get<std::string>() : "";
    if (std::find(known.begin(), known.end(), text) == known.end()) {
      return wrong(name, fmt::format("must be names among {}", fmt::join(known, ", ")));
    }
    names.push_back(text);
  }
}

const json* Fields::object(const char* name) {
  const json* value = take(name);
  if (value != nullptr && !value->is_object()) {
    want(name, "an object", *value);
    return nullptr;
  }
  return value;
}

const json* Fields::array(const char* name, std::size_t most) {
  const json* value = take(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) {
    want(name, "an array", *value);
    return nullptr;
  }
  if (value->size() > most) {
    wrong(name, fmt::format("must hold at most {} elements, got {}", most, value->size()));
    return nullptr;
  }
  return value;
}

void Fields::finish() {
  for (const auto& [name, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
    const std::string shown = name.substr(0, 64);
    wrong(name.size() <= 64 ? name : quote(name),
          fmt::format("is not known{}", did_you_mean(shown, known_)));
  }
}

json parse_object(std::string_view body, std::size_t most_bytes) {
  using http::beast_http::status;
  if (body.size() > most_bytes) {
    throw ProblemFailure({.status = status::payload_too_large,
                          .code = "body_too_large",
                          .detail = fmt::format("The body must be at most {} bytes, got {}.",
                                                most_bytes, body.size())});
  }
  auto parsed = parse_json(body, {.bytes = most_bytes, .depth = 32, .values = 20'000});
  if (!parsed.ok()) {
    throw ProblemFailure(
        {.status = status::bad_request,
         .code = "invalid_json",
         .detail = fmt::format("The body cannot be read: {}.", parsed.error().message)});
  }
  if (!parsed->is_object()) {
    throw ProblemFailure(
        {.status = status::bad_request,
         .code = "invalid_json",
         .detail = fmt::format("The body must be a JSON object, got {}.", kind_of(*parsed))});
  }
  return std::move(*parsed);
}

}  // namespace limner::gateway::api_v1
