// --prompts-file: one prompt per line, drawn together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"

namespace limner::cli {

struct PromptLine {
  std::string text;
  std::size_t line = 0;  // in the file, counted from 1
};

// Lines without spaces around them; empty ones are passed over. `file` "-" is standard input.
// kNotFound or kIo naming the file, kInvalidArgument when it has no prompt or more than a thousand.
Result<std::vector<PromptLine>> read_prompt_file(const std::filesystem::path& file);

}  // namespace limner::cli
