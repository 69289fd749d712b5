// Single file to diffusers folder, or a folder to a single file.
#pragma once

#include <string>

#include "base/error.h"
#include "cli/console.h"
#include "engine/weights/checkpoint/convert.h"

namespace limner::cli {

struct ConvertArguments {
  std::string input{}, output{}, tokenizer{};  // a model's name or path; its new path; "": found
  engine::weights::WriteOptions write{};
  engine::weights::SingleFileOptions read{};
};

// With a progress bar. Errors: kInvalidArgument, and those of read_model and write_folder.
Result<engine::weights::WriteReport> convert(ConvertArguments asked, const Console& console);

}  // namespace limner::cli
