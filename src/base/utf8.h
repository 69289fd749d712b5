// UTF-8 in and out, with the place in the input that each character came from.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner {

// A code point and the bytes [begin, end) of the input text that it stands for.
struct Character {
  char32_t code = 0;
  std::size_t begin = 0;
  std::size_t end = 0;
};

// Errors: kInvalidArgument naming the offset of the first byte that is not UTF-8 (surrogates,
// overlong forms and code points above 10FFFF are not).
Result<std::vector<Character>> decode_utf8(std::string_view text);

// Bytes (1 to 4) of the character that `text`, which is not empty, begins with; 0 when it is
// broken.
std::size_t utf8_length(std::string_view text);

// Appends the 1 to 4 bytes of `code`, which must be a code point that decode_utf8 can return.
void append_utf8(char32_t code, std::string& text);

}  // namespace limner
