// Weights in A1111's syntax: (word), (word:1.3), [word], escapes and BREAK.
#pragma once

#include "prompt/parsed_prompt.h"
#include "prompt/source_text.h"

namespace limner::prompt {

// As A1111's parse_prompt_attention: (x) weighs 1.1, [x] 1/1.1, nested ones multiply; brackets that
// never close count up to the end, ones that never opened are text; neighbours of equal weight
// become one fragment. Throws SyntaxError.
Passage parse_a1111_attention(const SourceText& text);

}  // namespace limner::prompt
