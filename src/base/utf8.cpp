#include "base/utf8.h"

#include <fmt/format.h>

namespace limner {
namespace {

// The smallest code point that needs this many continuation bytes; anything below is an overlong
// form.
constexpr char32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};

bool is_continuation(unsigned char byte) {
  return (byte & 0xC0) == 0x80;
}

// Reads one code point at text[at]; returns its length, or 0 when the bytes are not UTF-8.
std::size_t read_code_point(std::string_view text, std::size_t at, char32_t& code) {
  const auto lead = static_cast<unsigned char>(text[at]);
  std::size_t more = 0;
  if (lead < 0x80) {
    code = lead;
    return 1;
  }
  if (lead >= 0xC2 && lead <= 0xDF) {
    more = 1;
    code = lead & 0x1F;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    more = 2;
    code = lead & 0x0F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    more = 3;
    code = lead & 0x07;
  } else {
    return 0;
  }
  if (text.size() - at <= more) return 0;
  for (std::size_t i = 1; i <= more; ++i) {
    const auto byte = static_cast<unsigned char>(text[at + i]);
    if (!is_continuation(byte)) return 0;
    code = (code << 6) | (byte & 0x3F);
  }
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (code < kSmallest[more] || surrogate || code > 0x10FFFF) return 0;
  return more + 1;
}

}  // namespace

Result<std::vector<Character>> decode_utf8(std::string_view text) {
  std::vector<Character> characters;
  characters.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    Character character{.begin = at};
    const std::size_t length = read_code_point(text, at, character.code);
    if (length == 0) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("want UTF-8 text, got byte 0x{:02x} at offset {}",
                               static_cast<unsigned char>(text[at]), at)};
    }
    at += length;
    character.end = at;
    characters.push_back(character);
  }
  return characters;
}

std::size_t utf8_length(std::string_view text) {
  char32_t code = 0;
  return read_code_point(text, 0, code);
}

void append_utf8(char32_t code, std::string& text) {
  const auto tail = [&](int shift) {
    text.push_back(static_cast<char>(0x80 | ((code >> shift) & 0x3F)));
  };
  if (code < 0x80) {
    text.push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    text.push_back(static_cast<char>(0xC0 | (code >> 6)));
    tail(0);
  } else if (code < 0x10000) {
    text.push_back(static_cast<char>(0xE0 | (code >> 12)));
    tail(6);
    tail(0);
  } else {
    text.push_back(static_cast<char>(0xF0 | (code >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace limner
