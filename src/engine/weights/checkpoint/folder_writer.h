// Builds a folder of files beside its final place and renames it there when all is written. What an
// interrupted build finished is kept and checked, so that the next one goes on from there.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "engine/weights/safetensors.h"

namespace limner::engine::weights {

// Name of the manifest inside a folder that limner built.
inline constexpr const char* kManifestName = "limner-manifest.json";

// Used by one thread; two writers of one folder are kept apart by a lock. Throws Failure.
class FolderWriter {
 public:
  // `key` stands for everything the files are made from: a half-built folder of another key is
  // thrown away. Throws kInvalidArgument when `output` exists, kUnavailable when another process
  // writes it, kIo.
  FolderWriter(std::filesystem::path output, std::string key);
  ~FolderWriter();  // what is not finished stays for the next try
  FolderWriter(const FolderWriter&) = delete;
  FolderWriter& operator=(const FolderWriter&) = delete;

  // Whether an earlier build left this file whole (size and SHA-256 as it wrote them).
  bool has(const std::string& path) const { return files_.contains(path); }
  void add_text(const std::string& path, std::string_view content);
  void add_tensors(const std::string& path, std::vector<TensorPlan> tensors,
                   const MakeTensor& make);
  // Writes the manifest (`about` and every file's size and hash) and puts the folder in place.
  void finish(nlohmann::json about);

 private:
  void lock();
  void keep_what_is_whole();
  void remember(const std::string& path, WrittenFile file);

  std::filesystem::path output_, partial_;
  std::string key_;
  std::map<std::string, WrittenFile> files_;
  int lock_ = -1;
};

}  // namespace limner::engine::weights
