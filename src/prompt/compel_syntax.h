// Prompts in the syntax of the compel library.
#pragma once

#include <vector>

#include "prompt/parsed_prompt.h"
#include "prompt/source_text.h"

namespace limner::prompt {

struct CompelPrompt {
  Text text;
  std::vector<LoraTag> loras;
};

// word++ and word-- (1.1 and 0.9 to the number of marks), (words)++, (words)1.2, "words"-,
// (words).attend(1.2), withLora(name, 0.8), and over the whole prompt ("a", "b").blend(1, 2) or
// ("a", "b").and(1, 2). Bare brackets weigh 1; brackets and quotes that do not close are text.
// Throws SyntaxError for a function that cannot be read, and for .swap(), which needs the attention
// maps of two prompts.
CompelPrompt parse_compel(const SourceText& text);

}  // namespace limner::prompt
