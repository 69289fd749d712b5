#include "platform/trace/otlp_headers.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace limner::platform {
namespace {

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// A header's name (RFC 9110, section 5.6.2).
bool is_token(std::string_view text) {
  const auto fits = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
  };
  return !text.empty() && std::all_of(text.begin(), text.end(), fits);
}

// Nothing for a broken escape, and for what would end the header's line.
std::optional<std::string> unescaped(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned char byte = static_cast<unsigned char>(text[i]);
    if (byte == '%') {
      const char* const digits = text.data() + i + 1;
      if (text.size() - i < 3 || std::from_chars(digits, digits + 2, byte, 16).ptr != digits + 2) {
        return std::nullopt;
      }
      i += 2;
    }
    if (byte < 0x20 || byte == 0x7f) return std::nullopt;
    plain += static_cast<char>(byte);
  }
  return plain;
}

}  // namespace

Result<std::vector<std::string>> parse_otlp_headers(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find(','));
    text.remove_prefix(std::min(pair.size() + 1, text.size()));
    const auto equals = std::min(pair.find('='), pair.size());
    const std::string_view name = trimmed(pair.substr(0, equals));
    const auto value = unescaped(trimmed(pair.substr(std::min(equals + 1, pair.size()))));
    if (equals == pair.size() || !is_token(name) || !value) {
      return Error{ErrorCode::kInvalidArgument,
                   "[trace] want headers as NAME=VALUE,NAME=VALUE with percent-encoded values"};
    }
    lines.push_back(fmt::format("{}: {}", name, *value));
  }
  return lines;
}

}  // namespace limner::platform
