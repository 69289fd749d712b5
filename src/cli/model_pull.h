// Models from URLs, Civitai links and hub repositories.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/console.h"
#include "platform/http/download.h"

namespace limner::cli {

struct PullRequest {
  std::string what{};
  std::filesystem::path output{};  // the folder to put it in; "": the usual one
  std::string sha256{};            // of a single file
  std::string variant{};           // of a repository: fp16, ...
  // What is there under that name came from an earlier call for the same: it is taken as it is.
  bool keep = false;
};

struct Pulled {
  std::filesystem::path path{};                     // the file, or the model's folder
  std::vector<platform::http::Downloaded> files{};  // without hashes where they were kept
  std::string source{};                             // a URL without its query
};

// Whether `what` is a repository, by its name or its page, and not one file.
Result<bool> names_repository(const std::string& what);

// Blocks, with a progress bar. Called again after an interruption it goes on where it stopped.
// Errors as http::download, and kInvalidArgument for what is there already.
Result<Pulled> pull(const PullRequest& request, const Console& console);

}  // namespace limner::cli
