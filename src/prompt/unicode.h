// What the tokenizer needs to know about Unicode. unicode_icu.cpp answers for every code point;
// unicode_ascii.cpp, for builds without ICU, answers for ASCII and refuses the rest.
#pragma once

#include <vector>

#include "base/utf8.h"

namespace limner::prompt {

enum class CharacterClass { kSpace, kLetter, kNumber, kOther };

// White_Space, general categories L*, N*, and the rest.
CharacterClass character_class(char32_t code);

// Canonical composition (NFC) as of Unicode 9, which is what the `tokenizers` library normalises
// with: newer characters neither reorder nor compose. A composed character covers the bytes of all
// its parts. Linear but for the sort of each run of combining marks. Throws Failure(kUnsupported)
// in a build without ICU on non-ASCII text.
std::vector<Character> compose(std::vector<Character> characters);

// Appends the lower case of each character: character by character, so a final sigma is not special
// and U+0130 becomes two characters. The same library's rule (Rust's char::to_lowercase).
std::vector<Character> lower_case(const std::vector<Character>& characters);

}  // namespace limner::prompt
