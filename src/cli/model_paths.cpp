#include "cli/model_paths.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <sstream>

#include "base/suggest.h"

namespace limner::cli {

namespace fs = std::filesystem;

namespace {

constexpr const char* kSingleFile = ".safetensors";

}  // namespace

std::vector<fs::path> model_folders() {
  std::vector<fs::path> wanted;
  if (const char* listed = std::getenv("LIMNER_MODELS")) {
    std::stringstream in(listed);
    for (std::string folder; std::getline(in, folder, ':');) {
      if (!folder.empty()) wanted.emplace_back(folder);
    }
  }
  wanted.emplace_back("models");
  std::error_code ignored;
  const fs::path here = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  wanted.push_back(here / "models");
  wanted.push_back(here / ".." / "models");
  wanted.push_back(here / ".." / "share" / "limner" / "models");

  std::vector<fs::path> found;
  std::set<fs::path> seen;
  for (const fs::path& folder : wanted) {
    const fs::path real = fs::canonical(folder, ignored);
    if (!ignored && fs::is_directory(real, ignored) && seen.insert(real).second)
      found.push_back(real);
  }
  return found;
}

std::vector<fs::path> find_models(const std::vector<fs::path>& folders) {
  std::vector<fs::path> models;
  std::error_code ignored;
  for (const fs::path& folder : folders) {
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      const bool single_file = entry.path().extension() == kSingleFile;
      if (single_file || fs::exists(entry.path() / "model_index.json", ignored))
        models.push_back(entry.path());
    }
  }
  std::sort(models.begin(), models.end());
  return models;
}

std::string model_name(const fs::path& model) {
  return (model.extension() == kSingleFile ? model.stem() : model.filename()).string();
}

fs::path resolve_tokenizer(const std::string& tokenizer, const std::vector<fs::path>& folders) {
  if (!tokenizer.empty()) return tokenizer;
  std::error_code ignored;
  for (const fs::path& folder : folders) {
    if (fs::is_directory(folder / "clip-tokenizer", ignored)) return folder / "clip-tokenizer";
  }
  return {};
}

Result<fs::path> resolve_model(const std::string& model, const std::vector<fs::path>& folders) {
  std::error_code ignored;
  const bool plain_name = model.find('/') == std::string::npos && model != "." && model != "..";
  if (plain_name) {
    for (const fs::path& folder : folders) {
      if (!model.empty() && fs::exists(folder / model / "model_index.json", ignored))
        return folder / model;
      if (const fs::path file = folder / (model + kSingleFile);
          !model.empty() && fs::is_regular_file(file, ignored)) {
        return file;
      }
    }
  }
  if (!model.empty() && fs::exists(model, ignored)) return fs::path(model);

  std::vector<std::string> names;
  for (const fs::path& known : find_models(folders)) names.push_back(model_name(known));
  const std::string shown = model.substr(0, 200);
  if (!plain_name)
    return Error{ErrorCode::kNotFound,
                 fmt::format("no such model: there is nothing at '{}'", shown)};
  return Error{ErrorCode::kNotFound,
               fmt::format("no such model: '{}'{}; `limner model list` shows those there are",
                           shown, did_you_mean(shown, names))};
}

}  // namespace limner::cli
