// The folders that adapters are looked for in by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::engine::lora {

struct NamedAdapter {
  std::string name;
  std::filesystem::path file;
  std::uint64_t bytes = 0;
};

// Reads the folders anew at every call, so that a file dropped in is found at its next use. Safe to
// call from many threads.
class AdapterFolders {
 public:
  AdapterFolders() = default;
  // The first folder that has a name wins. Folders that do not exist have nothing in them.
  explicit AdapterFolders(std::vector<std::filesystem::path> folders)
      : folders_(std::move(folders)) {}

  // Every *.safetensors file in the folders and up to four levels below, by name; folders that are
  // links are not entered. Within a folder the first path in alphabetical order has the name.
  std::vector<NamedAdapter> list() const;
  // kInvalidArgument for what cannot be a name, kNotFound with near names.
  Result<std::filesystem::path> find(std::string_view name) const;
  const std::vector<std::filesystem::path>& folders() const { return folders_; }

  // A path when `wanted` is one that exists or has a '/' in it, else by name: for a command line,
  // whose user may read any file.
  Result<std::filesystem::path> find_path_or_name(const std::string& wanted) const;

 private:
  std::vector<std::filesystem::path> folders_;
};

// The file's name without its extension, everything but letters, digits, '.', '_' and '-' as '_'.
std::string adapter_name(const std::filesystem::path& file);

}  // namespace limner::engine::lora
