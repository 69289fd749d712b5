#include "prompt/infotext.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

namespace limner::prompt {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kNegative = "Negative prompt:";
constexpr std::string_view kSteps = "Steps: ";
constexpr std::string_view kExactPrompt = "Exact prompt";
constexpr std::string_view kExactNegative = "Exact negative prompt";
constexpr std::size_t kFewestParameters = 3;

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

bool is_name(char c) {
  return is_word(c) || c == ' ' || c == '-' || c == '/';
}

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool needs_quotes(std::string_view value) {
  if (value.empty()) return false;
  if (value.front() == '"' || is_space(value.front()) || is_space(value.back())) return true;
  return std::any_of(value.begin(), value.end(), [](char c) {
    return c == ',' || c == ':' || (static_cast<unsigned char>(c) < 0x20);
  });
}

std::string json_string(std::string_view value) {
  return Json(value).dump(-1, ' ', false, Json::error_handler_t::replace);
}

void append_parameter(std::string& line, std::string_view name, std::string_view value) {
  if (!line.empty()) line += ", ";
  fmt::format_to(std::back_inserter(line), "{}: ", name);
  line += needs_quotes(value) ? json_string(value) : std::string(value);
}

std::string join(const Infotext& infotext, const std::string& line) {
  std::string text = infotext.prompt;
  if (!infotext.negative_prompt.empty()) {
    if (!text.empty()) text += '\n';
    fmt::format_to(std::back_inserter(text), "{} {}", kNegative, infotext.negative_prompt);
  }
  if (!line.empty()) {
    if (!text.empty()) text += '\n';
    text += line;
  }
  return text;
}

// The end of the quoted string that starts at line[at], when a comma or the end follows it.
std::optional<std::size_t> quoted_end(std::string_view line, std::size_t at) {
  for (std::size_t i = at + 1; i < line.size(); ++i) {
    if (line[i] == '\\') {
      ++i;
    } else if (line[i] == '"') {
      const bool closed = i + 1 == line.size() || line[i + 1] == ',';
      return closed ? std::optional(i + 1) : std::nullopt;
    }
  }
  return std::nullopt;
}

std::string unquote(std::string_view value) {
  if (value.size() < 2 || value.front() != '"' || value.back() != '"') return std::string(value);
  const Json parsed = Json::parse(value, nullptr, false);
  return parsed.is_string() ? parsed.get<std::string>() : std::string(value);
}

// Every "name: value" of a line; what fits no such shape is passed over.
std::vector<std::pair<std::string, std::string>> parse_line(std::string_view line) {
  std::vector<std::pair<std::string, std::string>> parameters;
  for (std::size_t at = 0; at < line.size();) {
    if (!is_word(line[at])) {
      ++at;
      continue;
    }
    std::size_t colon = at;
    while (colon < line.size() && is_name(line[colon])) ++colon;
    if (colon == line.size() || line[colon] != ':' || colon - at < 2) {
      at = colon + 1;
      continue;
    }
    std::size_t begin = colon + 1;
    while (begin < line.size() && is_space(line[begin])) ++begin;
    std::optional<std::size_t> end;
    if (begin < line.size() && line[begin] == '"') end = quoted_end(line, begin);
    if (!end) end = std::min(line.find(',', begin), line.size());
    parameters.emplace_back(line.substr(at, colon - at), unquote(line.substr(begin, *end - begin)));
    at = *end + 1;
  }
  return parameters;
}

bool holds_parameters(std::string_view line, std::size_t count) {
  return count >= kFewestParameters || line.starts_with(kSteps) ||
         line.starts_with(fmt::format("{}: ", kExactPrompt));
}

// Splits "prompt\nNegative prompt: negative" at the first line that starts so.
void split_prompts(std::string_view text, Infotext& infotext) {
  std::size_t at = 0;
  while (!text.substr(at).starts_with(kNegative)) {
    const std::size_t line = text.find('\n', at);
    if (line == std::string_view::npos) {
      infotext.prompt = text;
      return;
    }
    at = line + 1;
  }
  infotext.prompt = text.substr(0, at == 0 ? 0 : at - 1);
  std::string_view negative = text.substr(at + kNegative.size());
  if (negative.starts_with(' ')) negative.remove_prefix(1);
  infotext.negative_prompt = negative;
}

bool is_valid_name(std::string_view name) {
  return name.size() >= 2 && is_word(name.front()) && is_word(name.back()) &&
         std::all_of(name.begin(), name.end(), is_name) && name != kExactPrompt &&
         name != kExactNegative;
}

}  // namespace

const std::string* Infotext::find(std::string_view name) const {
  for (const auto& parameter : parameters) {
    if (parameter.first == name) return &parameter.second;
  }
  return nullptr;
}

Result<std::string> write_infotext(const Infotext& infotext) {
  std::string line;
  for (const auto& [name, value] : infotext.parameters) {
    if (!is_valid_name(name)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("[prompt.infotext] '{}' cannot be the name of a parameter", name)};
    }
    append_parameter(line, name, value);
  }
  std::string text = join(infotext, line);
  if (parse_infotext(text) == infotext) return text;
  // In front of the others, so that the line is known by its start even where they are few.
  std::string exact = fmt::format("{}: {}, {}: {}", kExactPrompt, json_string(infotext.prompt),
                                  kExactNegative, json_string(infotext.negative_prompt));
  if (!line.empty()) exact += ", " + line;
  return join(infotext, exact);
}

Infotext parse_infotext(std::string_view text) {
  Infotext infotext;
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  const std::size_t line_break = text.rfind('\n');
  const std::size_t begin = line_break == std::string_view::npos ? 0 : line_break + 1;
  const std::string_view line = text.substr(begin);
  auto parameters = parse_line(line);
  if (holds_parameters(line, parameters.size())) {
    infotext.parameters = std::move(parameters);
    text = text.substr(0, begin == 0 ? 0 : begin - 1);
  }
  split_prompts(text, infotext);
  auto& all = infotext.parameters;
  const auto take = [&](std::string_view name, std::string& into) {
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const auto& p) { return p.first == name; });
    if (found == all.end()) return;
    into = std::move(found->second);
    all.erase(found);
  };
  take(kExactPrompt, infotext.prompt);
  take(kExactNegative, infotext.negative_prompt);
  return infotext;
}

}  // namespace limner::prompt
