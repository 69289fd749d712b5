#include "contract/json_fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "base/quote.h"
#include "base/suggest.h"

namespace limner::contract {
namespace {

using nlohmann::json;

bool fits_integer(const json& value) {
  if (!value.is_number_integer()) return false;
  return !value.is_number_unsigned() ||
         value.get<std::uint64_t>() <=
             static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
}

}  // namespace

std::string_view json_kind(const json& value) {
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

void Fields::also_known_as(const char* name, const char* other) {
  others_.emplace(name, other);
}

const json* Fields::find(const char* name) {
  known_.emplace_back(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const json* Fields::take(const char* name) {
  const json* value = find(name);
  const char* given = name;
  const auto [first, last] = others_.equal_range(name);
  for (auto other = first; other != last; ++other) {
    const json* further = find(other->second);
    if (further == nullptr) continue;
    if (value != nullptr) {
      wrong(other->second, fmt::format("and {} are one setting; leave one of them out", given));
      continue;
    }
    value = further;
    given = other->second;
  }
  return value;
}

bool Fields::has(std::string_view name) const {
  const auto found = object_.find(name);
  return found != object_.end() && !found->is_null();
}

void Fields::wrong(std::string_view name, std::string message) {
  problems_.push_back({path_ + std::string(name), std::move(message)});
}

void Fields::want(const char* name, std::string_view kind, const json& got) {
  wrong(name, fmt::format("must be {}, got {}", kind, json_kind(got)));
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

std::vector<std::string> Fields::unknown() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), name) == known_.end()) names.push_back(name);
  }
  return names;
}

void Fields::finish() {
  for (const std::string& name : unknown()) {
    const std::string shown = name.substr(0, 64);
    wrong(name.size() <= 64 ? name : quote(name),
          fmt::format("is not known{}", did_you_mean(shown, known_)));
  }
}

}  // namespace limner::contract
