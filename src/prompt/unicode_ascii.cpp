// Built where there is no ICU: exact for ASCII, and a clear refusal of everything else.
#include <fmt/format.h>

#include "prompt/unicode.h"

namespace limner::prompt {
namespace {

bool is_between(char32_t code, char32_t first, char32_t last) {
  return code >= first && code <= last;
}

}  // namespace

CharacterClass character_class(char32_t code) {
  if (code == ' ' || is_between(code, '\t', '\r')) return CharacterClass::kSpace;
  if (is_between(code, 'a', 'z') || is_between(code, 'A', 'Z')) return CharacterClass::kLetter;
  if (is_between(code, '0', '9')) return CharacterClass::kNumber;
  return CharacterClass::kOther;
}

std::vector<Character> compose(std::vector<Character> characters) {
  for (const Character& character : characters) {
    if (character.code < 0x80) continue;
    throw Failure(
        ErrorCode::kUnsupported,
        fmt::format(
            "[prompt] this build reads ASCII prompts only, got U+{:04X} at byte {}; install "
            "libicu-dev and build again for other text",
            static_cast<std::uint32_t>(character.code), character.begin));
  }
  return characters;
}

std::vector<Character> lower_case(const std::vector<Character>& characters) {
  std::vector<Character> lowered = characters;
  for (Character& character : lowered) {
    if (is_between(character.code, 'A', 'Z')) character.code += 'a' - 'A';
  }
  return lowered;
}

}  // namespace limner::prompt
