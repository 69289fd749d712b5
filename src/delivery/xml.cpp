#include "delivery/xml.h"

#include <array>
#include <charconv>
#include <utility>

namespace limner::delivery {
namespace {

// The character behind "#34" or "#x22"; only ASCII can be escaped in an answer we read.
std::string character(std::string_view number) {
  const bool hexadecimal = number.starts_with("#x");
  number.remove_prefix(hexadecimal ? 2 : 1);
  unsigned code = 0;
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), code, hexadecimal ? 16 : 10);
  const bool ascii = error == std::errc() && end == number.data() + number.size() && code < 128;
  return ascii ? std::string(1, static_cast<char>(code)) : "";
}

std::string unescaped(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, char>, 5> kNamed = {
      {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}}};
  std::string plain;
  while (!text.empty()) {
    const auto end = text.starts_with('&') ? text.find(';') : std::string_view::npos;
    if (end == std::string_view::npos) {
      plain += text.front();
      text.remove_prefix(1);
      continue;
    }
    const std::string_view entity = text.substr(1, end - 1);
    if (entity.starts_with('#')) plain += character(entity);
    for (const auto& [name, c] : kNamed) {
      if (entity == name) plain += c;
    }
    text.remove_prefix(end + 1);
  }
  return plain;
}

}  // namespace

std::vector<std::string_view> xml_elements(std::string_view xml, std::string_view name) {
  const std::string open = '<' + std::string(name), close = "</" + std::string(name) + '>';
  std::vector<std::string_view> found;
  std::size_t at = 0;
  while ((at = xml.find(open, at)) != std::string_view::npos) {
    at += open.size();
    // <Key> and <Key a="b">, not <KeyCount>.
    if (xml.substr(at, 1).find_first_of("> ") == std::string_view::npos) continue;
    const auto begin = xml.find('>', at);
    const auto end = xml.find(close, at);
    if (begin == std::string_view::npos || end == std::string_view::npos || begin >= end) break;
    found.push_back(xml.substr(begin + 1, end - begin - 1));
    at = end + close.size();
  }
  return found;
}

std::string xml_text(std::string_view xml, std::string_view name) {
  const auto elements = xml_elements(xml, name);
  return elements.empty() ? "" : unescaped(elements.front());
}

}  // namespace limner::delivery
