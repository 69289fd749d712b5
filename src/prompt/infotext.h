// The parameters of a picture as text, in the form that AUTOMATIC1111's web UI writes into its
// pictures:
//
//   the prompt, any number of lines
//   Negative prompt: any number of lines
//   Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512,
//   Model: x, Version: y
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace limner::prompt {

struct Infotext {
  std::string prompt{};
  std::string negative_prompt{};
  // In order, e.g. {"Steps", "20"}. Names: two or more letters, digits, spaces, '_', '-' or '/',
  // the first and the last no space, '-' or '/'.
  std::vector<std::pair<std::string, std::string>> parameters{};

  // The value of a parameter, or nullptr.
  const std::string* find(std::string_view name) const;
  bool operator==(const Infotext&) const = default;
};

// parse_infotext(*write_infotext(x)) == x for any valid UTF-8. A value with a comma, a colon or a
// line break is written as a JSON string, as the web UI does. Prompts that the form itself cannot
// tell from its own lines (one that holds "Negative prompt:", say) are written once more as "Exact
// prompt" and "Exact negative prompt". Errors: kInvalidArgument for a name that the form cannot
// hold.
Result<std::string> write_infotext(const Infotext& infotext);

// Reads anything, in linear time: a text without parameters is all prompt. The last line holds the
// parameters when there are three or more of them in it (the web UI's rule) or it starts as ours
// do.
Infotext parse_infotext(std::string_view text);

}  // namespace limner::prompt
