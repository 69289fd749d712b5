#include "engine/weights/config.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "base/suggest.h"
#include "engine/weights/json.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

using nlohmann::json;

const json& null_json() {
  static const json value;
  return value;
}

// A value as a message shows it. Depth is bounded by parse_json, so that dump() may recurse.
std::string shown(const json& value) {
  constexpr std::size_t kLongest = 80;
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  const std::string safe = quote(text);
  return safe.substr(1, safe.size() - 2);
}

bool to_integer(const json& value, std::int64_t& out) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return false;
    out = static_cast<std::int64_t>(number);
    return true;
  }
  if (value.is_number_integer()) {
    out = value.get<std::int64_t>();
    return true;
  }
  if (!value.is_number_float()) return false;
  const double number = value.get<double>();
  if (!(std::abs(number) <= 9007199254740992.0) || number != std::floor(number)) return false;
  out = static_cast<std::int64_t>(number);
  return true;
}

bool same_scalar(const json& a, const json& b) {
  if (a.is_number() && b.is_number()) return a.get<double>() == b.get<double>();
  return a == b;
}

}  // namespace

Config Config::read(const std::filesystem::path& file) {
  const std::string where = short_name(file);
  return Config(read_json(file, where), where);
}

Config::Config(json object, std::string where)
    : object_(std::move(object)), where_(std::move(where)) {
  if (!object_.is_object()) {
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: want a JSON object, got {}", where_, object_.type_name()));
  }
}

void Config::fail(std::string_view key, std::string_view message) const {
  throw Failure(ErrorCode::kInvalidModel, fmt::format("{}: {} {}", where_, quote(key), message));
}

const json& Config::raw(std::string_view key) const {
  if (read_.find(key) == read_.end()) read_.emplace(key);
  const auto found = object_.find(key);
  return found == object_.end() ? null_json() : *found;
}

bool Config::has(std::string_view key) const {
  return !raw(key).is_null();
}

std::int64_t Config::integer(std::string_view key, std::int64_t fallback) const {
  const json& value = raw(key);
  if (value.is_null()) return fallback;
  std::int64_t number = 0;
  if (!to_integer(value, number)) fail(key, "wants a whole number, got " + shown(value));
  return number;
}

double Config::number(std::string_view key, double fallback) const {
  const json& value = raw(key);
  if (value.is_null()) return fallback;
  if (!value.is_number()) fail(key, "wants a number, got " + shown(value));
  return value.get<double>();
}

bool Config::boolean(std::string_view key, bool fallback) const {
  const json& value = raw(key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) fail(key, "wants true or false, got " + shown(value));
  return value.get<bool>();
}

std::string Config::text(std::string_view key, std::string_view fallback) const {
  const json& value = raw(key);
  if (value.is_null()) return std::string(fallback);
  if (!value.is_string()) fail(key, "wants text, got " + shown(value));
  return value.get<std::string>();
}

std::vector<std::int64_t> Config::integers(std::string_view key,
                                           std::vector<std::int64_t> fallback) const {
  const json& value = raw(key);
  if (value.is_null()) return fallback;
  if (!value.is_array()) fail(key, "wants a list of whole numbers, got " + shown(value));
  std::vector<std::int64_t> numbers;
  for (const json& item : value) {
    std::int64_t number = 0;
    if (!to_integer(item, number)) fail(key, "wants a list of whole numbers, got " + shown(value));
    numbers.push_back(number);
  }
  return numbers;
}

std::vector<double> Config::numbers(std::string_view key, std::vector<double> fallback) const {
  const json& value = raw(key);
  if (value.is_null()) return fallback;
  if (!value.is_array()) fail(key, "wants a list of numbers, got " + shown(value));
  std::vector<double> result;
  for (const json& item : value) {
    if (!item.is_number()) fail(key, "wants a list of numbers, got " + shown(value));
    result.push_back(item.get<double>());
  }
  return result;
}

std::vector<std::string> Config::texts(std::string_view key,
                                       std::vector<std::string> fallback) const {
  const json& value = raw(key);
  if (value.is_null()) return fallback;
  if (!value.is_array()) fail(key, "wants a list of texts, got " + shown(value));
  std::vector<std::string> result;
  for (const json& item : value) {
    if (!item.is_string()) fail(key, "wants a list of texts, got " + shown(value));
    result.push_back(item.get<std::string>());
  }
  return result;
}

std::vector<std::int64_t> Config::integer_per_block(std::string_view key, std::int64_t fallback,
                                                    std::size_t count) const {
  const json& value = raw(key);
  if (!value.is_array()) return std::vector<std::int64_t>(count, integer(key, fallback));
  std::vector<std::int64_t> list = integers(key, {});
  if (list.size() != count) {
    fail(key, fmt::format("wants one number or a list of {}, got {}", count, shown(value)));
  }
  return list;
}

std::int64_t Config::integer_in(std::string_view key, std::int64_t fallback, std::int64_t lowest,
                                std::int64_t highest) const {
  const std::int64_t value = integer(key, fallback);
  if (value < lowest || value > highest) {
    fail(key, fmt::format("wants a whole number from {} to {}, got {}", lowest, highest, value));
  }
  return value;
}

void Config::ignore(std::initializer_list<std::string_view> keys) const {
  for (const std::string_view key : keys) read_.emplace(key);
}

void Config::only(std::string_view key, const json& value) const {
  const json& found = raw(key);
  if (found.is_null() || same_scalar(found, value)) return;
  fail(key, fmt::format("= {} is not supported (want {})", shown(found), shown(value)));
}

void Config::finish() const {
  const std::vector<std::string> known(read_.begin(), read_.end());
  for (const auto& [key, value] : object_.items()) {
    if (key.starts_with('_') || read_.contains(key)) continue;
    fail(key,
         fmt::format("= {} is a key that this build does not know, and it may change the picture{}",
                     shown(value), did_you_mean(key, known)));
  }
}

}  // namespace limner::engine::weights
