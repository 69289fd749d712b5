// Where what lies on a volume, and what does not belong there.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::runpod {

// The folders that a worker reads.
inline constexpr std::array<const char*, 4> kVolumeFolders = {"models", "loras", "embeddings",
                                                              "controlnets"};
// Single files before they are converted, and what templates are made from: it stays at home.
inline constexpr const char* kRawFolder = "models/downloads";
inline constexpr const char* kTemplatesFile = "templates.json";

// Names that a download, a conversion or a copy has while it is not finished: *.part, *.new, ...
bool is_leftover(const std::filesystem::path& name);

// Every file of the four folders and templates.json, sorted, with '/' and below the volume; without
// kRawFolder, leftovers and hidden files. Errors: kIo for a folder that cannot be read,
// kInvalidArgument for a link to a folder, which would not travel.
Result<std::vector<std::string>> volume_files(const std::filesystem::path& volume);

}  // namespace limner::runpod
