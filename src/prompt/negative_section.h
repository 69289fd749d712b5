// A negative prompt written inside the prompt.
#pragma once

#include <string>
#include <string_view>

namespace limner::prompt {

struct PromptPair {
  std::string prompt;
  std::string negative;
};

// "a cat ### negative: blurry" (any case, any number of '#' from two on) and Midjourney's
// "a cat --no blurry, text", each up to the end or the next one. Several, and `negative` before
// them, are joined with commas. Without one the texts come back as they are.
PromptPair extract_negative(std::string_view prompt, std::string_view negative);

}  // namespace limner::prompt
