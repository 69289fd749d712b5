// .env files: names and values for programs that are run by hand.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::runpod {

// NAME=VALUE lines, "export " before them if you like, and lines that are empty or begin with '#'.
// A value is what follows, without spaces at its ends and without a comment after " #"; or text in
// '...' as it stands, or in "..." with \\, \", \n and \$. Nothing is expanded. Errors
// (kInvalidArgument): "FILE:LINE: ..." for whatever is none of these, and for a name set twice; a
// value is never part of the message.
Result<std::map<std::string, std::string>> parse_env_file(std::string_view text,
                                                          const std::string& file);
// The same for a file; kNotFound and kIo when it cannot be read.
Result<std::map<std::string, std::string>> read_env_file(const std::filesystem::path& file);

}  // namespace limner::runpod
