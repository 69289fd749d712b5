#include "cli/lora_paths.h"

#include <cstdlib>
#include <sstream>

#include "cli/model_paths.h"

namespace limner::cli {

namespace fs = std::filesystem;

namespace {

// `given`, those that the variable lists, and `name` inside the model, here and beside each folder
// of models.
std::vector<fs::path> folders_of(const char* name, const char* variable,
                                 const std::vector<std::string>& given, const fs::path& model) {
  std::vector<fs::path> folders(given.begin(), given.end());
  if (const char* listed = std::getenv(variable)) {
    std::stringstream in(listed);
    for (std::string folder; std::getline(in, folder, ':');) {
      if (!folder.empty()) folders.emplace_back(folder);
    }
  }
  if (!model.empty()) folders.push_back(model / name);
  folders.emplace_back(name);
  for (const fs::path& models : model_folders()) folders.push_back(models.parent_path() / name);
  return folders;
}

}  // namespace

engine::lora::AdapterFolders lora_folders(const std::vector<std::string>& given,
                                          const fs::path& model) {
  return engine::lora::AdapterFolders(folders_of("loras", "LIMNER_LORAS", given, model));
}

std::vector<fs::path> embedding_folders(const std::vector<std::string>& given,
                                        const fs::path& model) {
  return folders_of("embeddings", "LIMNER_EMBEDDINGS", given, model);
}

}  // namespace limner::cli
