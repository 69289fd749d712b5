#include "runpod/prompt_cleaning.h"

#include <algorithm>
#include <iterator>

#include "base/utf8.h"

namespace limner::runpod {
namespace {

struct Range {
  char32_t first, last;
};

// White_Space=yes of Unicode's PropList.txt.
constexpr Range kBlanks[] = {{0x09, 0x0D},     {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                             {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                             {0x205F, 0x205F}, {0x3000, 0x3000}};
constexpr Range kUnseen[] = {{0x00, 0x1F},     {0x7F, 0x9F},       {0xAD, 0xAD},
                             {0x180B, 0x180F}, {0x200B, 0x200F},   {0x202A, 0x202E},
                             {0x2060, 0x206F}, {0xFE00, 0xFE0F},   {0xFEFF, 0xFEFF},
                             {0xFFF9, 0xFFFB}, {0xE0000, 0xE007F}, {0xE0100, 0xE01EF}};

template <std::size_t Count>
bool in(const Range (&ranges)[Count], char32_t code) {
  return std::ranges::any_of(
      ranges, [&](const Range& range) { return range.first <= code && code <= range.last; });
}

}  // namespace

Result<std::string> clean_prompt(std::string_view text) {
  const auto characters = decode_utf8(text);
  if (!characters.ok()) return characters.error();
  std::string clean;
  bool blank = false;
  for (const Character& character : *characters) {
    if (in(kBlanks, character.code)) {
      blank = true;
    } else if (!in(kUnseen, character.code)) {
      if (blank && !clean.empty()) clean += ' ';
      blank = false;
      append_utf8(character.code, clean);
    }
  }
  return clean;
}

}  // namespace limner::runpod
