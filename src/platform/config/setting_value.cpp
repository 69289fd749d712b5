#include "platform/config/setting_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/suggest.h"
#include "base/utf8.h"

namespace limner::platform {
namespace {

namespace fs = std::filesystem;
using Ranges = std::vector<http::AddressRange>;

constexpr std::array<std::pair<std::string_view, int>, 5> kSizeUnits = {
    {{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}}};
constexpr std::size_t kLongestText = 4096;

template <typename... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};

[[noreturn]] void fail(std::string_view want, std::string_view got) {
  const bool whole = got.size() <= 80;
  throw Failure(
      ErrorCode::kInvalidArgument,
      fmt::format("want {}, got {}{}", want, toml_text(got.substr(0, 80)), whole ? "" : "..."));
}

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

std::vector<std::string> parts(std::string_view text, char separator) {
  std::vector<std::string> found;
  while (!trimmed(text).empty()) {
    const auto end = std::min(text.find(separator), text.size());
    found.emplace_back(trimmed(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return found;
}

template <typename Number>
std::optional<Number> parse(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::string bounds(const Setting& setting) {
  if (setting.most == std::numeric_limits<double>::max()) {
    return fmt::format("of at least {}", setting.least);
  }
  return fmt::format("from {} to {}", setting.least, setting.most);
}

std::int64_t whole_number(const Setting& setting, const std::string& text) {
  const auto number = parse<std::int64_t>(text);
  const auto value = static_cast<double>(number.value_or(0));
  if (!number || value < setting.least || value > setting.most) {
    fail("a whole number " + bounds(setting), text);
  }
  return *number;
}

double real_number(const Setting& setting, const std::string& text) {
  const auto number = parse<double>(text);
  if (!number || !std::isfinite(*number) || *number < setting.least || *number > setting.most) {
    fail("a number " + bounds(setting), text);
  }
  return *number;
}

bool yes_or_no(const std::string& text) {
  if (text == "true" || text == "on" || text == "1") return true;
  if (text == "false" || text == "off" || text == "0") return false;
  fail("on or off (true or false)", text);
}

Bytes size(const Setting& setting, const std::string& text) {
  std::string_view number = text;
  int shift = 0;
  for (const auto& [unit, bits] : kSizeUnits) {
    if (!text.ends_with(unit)) continue;
    number = trimmed(number.substr(0, number.size() - unit.size()));
    shift = bits;
    break;
  }
  const auto count = parse<std::uint64_t>(number);
  if (!count || *count > (std::uint64_t{1} << 62) >> shift) {
    fail("bytes, or a number with KiB, MiB, GiB or TiB", text);
  }
  const Bytes bytes{*count << shift};
  if (static_cast<double>(bytes.count) < setting.least) {
    fail(fmt::format("at least {} bytes", setting.least), text);
  }
  return bytes;
}

std::string one_text(const Setting& setting, const std::string& text) {
  if (text.size() > kLongestText || text.find('\0') != std::string::npos ||
      !decode_utf8(text).ok()) {
    fail("UTF-8 of at most 4096 bytes, without zero bytes", text);
  }
  const auto& choices = setting.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("want {}, got {}{}", wanted(setting), toml_text(text),
                              did_you_mean(text, choices)));
  }
  if (setting.check != nullptr) {
    if (const auto want = setting.check(text); !want.empty()) fail(want, text);
  }
  return text;
}

Ranges ranges(const Written& texts) {
  std::string all;
  for (const std::string& text : texts) {
    if (text.find(',') != std::string::npos) fail("one address range in each text", text);
    all += (all.empty() ? "" : ",") + text;
  }
  return http::parse_address_ranges(all).value_or_throw();
}

template <typename T>
std::vector<T> texts(const Setting& setting, const Written& value) {
  std::vector<T> all;
  for (const std::string& text : value) all.emplace_back(one_text(setting, text));
  return all;
}

std::string range_text(const http::AddressRange& range) {
  return toml_text(fmt::format("{}/{}", http::to_string(range.first), range.prefix));
}

template <typename List, typename Text>
std::string list_text(const List& list, const Text& text) {
  std::string all;
  for (const auto& item : list) all += (all.empty() ? "" : ", ") + text(item);
  return "[" + all + "]";
}

std::string bytes_text(Bytes bytes) {
  for (const auto& [unit, bits] : kSizeUnits) {
    if (bits == 0 || bytes.count == 0) break;
    if (bytes.count % (std::uint64_t{1} << bits) == 0) {
      return toml_text(fmt::format("{} {}", bytes.count >> bits, unit));
    }
  }
  return fmt::format("{}", bytes.count);
}

std::string_view format_name(LogFormat format) {
  constexpr std::array<std::string_view, 3> kNames = {"auto", "json", "text"};
  return kNames[static_cast<std::size_t>(format)];
}

}  // namespace

std::string toml_text(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

bool is_list(const Setting& setting) {
  return std::holds_alternative<FieldOf<std::vector<std::string>>>(setting.field) ||
         std::holds_alternative<FieldOf<std::vector<fs::path>>>(setting.field) ||
         std::holds_alternative<FieldOf<Ranges>>(setting.field);
}

std::string wanted(const Setting& setting) {
  if (is_list(setting)) return "a list of texts";
  if (!setting.choices.empty()) {
    std::string choices;
    for (std::size_t i = 0; i < setting.choices.size(); ++i) {
      choices += i == 0 ? "" : i + 1 == setting.choices.size() ? " or " : ", ";
      choices += setting.choices[i];
    }
    return choices;
  }
  return std::visit(
      Overloaded{[](FieldOf<bool>) { return "true or false"; },
                 [](FieldOf<std::int64_t>) { return "a whole number"; },
                 [](FieldOf<Seconds>) { return "a whole number of seconds"; },
                 [](FieldOf<Days>) { return "a whole number of days"; },
                 [](FieldOf<double>) { return "a number"; },
                 [](FieldOf<Bytes>) { return "a number of bytes or a text such as \"32 MiB\""; },
                 [](auto) { return "a text"; }},
      setting.field);
}

Written split(const Setting& setting, std::string_view text) {
  if (!is_list(setting)) return {std::string(text)};
  const bool folders = std::holds_alternative<FieldOf<std::vector<fs::path>>>(setting.field);
  return parts(text, folders ? ':' : ',');
}

void store(const Setting& setting, const Written& value, ServiceConfig& config) {
  const std::string one = value.empty() ? "" : value.front();
  std::visit(
      Overloaded{
          [&](FieldOf<bool> field) { field(config) = yes_or_no(one); },
          [&](FieldOf<std::int64_t> field) { field(config) = whole_number(setting, one); },
          [&](FieldOf<Seconds> field) { field(config) = Seconds(whole_number(setting, one)); },
          [&](FieldOf<Days> field) { field(config) = Days(whole_number(setting, one)); },
          [&](FieldOf<double> field) { field(config) = real_number(setting, one); },
          [&](FieldOf<Bytes> field) { field(config) = size(setting, one); },
          [&](FieldOf<std::string> field) { field(config) = one_text(setting, one); },
          [&](FieldOf<fs::path> field) { field(config) = one_text(setting, one); },
          [&](FieldOf<Secret> field) { field(config).value = one_text(setting, one); },
          [&](FieldOf<LogLevel> field) {
            field(config) = *parse_log_level(one_text(setting, one));
          },
          [&](FieldOf<LogFormat> field) {
            field(config) = *parse_log_format(one_text(setting, one));
          },
          [&](FieldOf<Ranges> field) { field(config) = ranges(value); },
          [&](FieldOf<std::vector<std::string>> field) {
            field(config) = texts<std::string>(setting, value);
          },
          [&](FieldOf<std::vector<fs::path>> field) {
            field(config) = texts<fs::path>(setting, value);
          },
      },
      setting.field);
}

std::string shown(const Setting& setting, ServiceConfig& config) {
  return std::visit(
      Overloaded{
          [&](FieldOf<bool> field) -> std::string { return field(config) ? "true" : "false"; },
          [&](FieldOf<Seconds> field) { return fmt::format("{}", field(config).count()); },
          [&](FieldOf<Days> field) { return fmt::format("{}", field(config).count()); },
          [&](FieldOf<Bytes> field) { return bytes_text(field(config)); },
          [&](FieldOf<std::string> field) { return toml_text(field(config)); },
          [&](FieldOf<fs::path> field) { return toml_text(field(config).string()); },
          [&](FieldOf<Secret> field) {
            return toml_text(field(config).value.empty() ? "" : "********");
          },
          [&](FieldOf<LogLevel> field) { return toml_text(name(field(config))); },
          [&](FieldOf<LogFormat> field) { return toml_text(format_name(field(config))); },
          [&](FieldOf<Ranges> field) { return list_text(field(config), range_text); },
          [&](FieldOf<std::vector<std::string>> field) {
            return list_text(field(config), toml_text);
          },
          [&](FieldOf<std::vector<fs::path>> field) {
            return list_text(field(config),
                             [](const fs::path& p) { return toml_text(p.string()); });
          },
          [&](auto number) { return fmt::format("{}", number(config)); },
      },
      setting.field);
}

}  // namespace limner::platform
