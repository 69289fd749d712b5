// Words of strangers, before they are drawn.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::runpod {

// Without characters that nobody sees: control characters (C0, DEL, C1), soft hyphens, zero-width
// and directional marks (U+200B..U+200F, U+202A..U+202E, U+2060..U+206F, U+180E, U+FEFF), tags
// (U+E0000..U+E007F) and variation selectors. Every run of spaces, tabs, line ends and Unicode's
// other blanks becomes one space; none stands at the ends. Errors: kInvalidArgument where it is not
// UTF-8.
Result<std::string> clean_prompt(std::string_view text);

}  // namespace limner::runpod
