// The folder that holds everything of a service.
#pragma once

#include <filesystem>

#include "base/error.h"

namespace limner::platform {

// Makes the folder where it is not there, its owner's alone: it holds keys, prompts and pictures.
// Its name and those of the folders it lies in outlive a power cut, where their file systems can.
// Throws Failure(kIo).
void make_data_folder(const std::filesystem::path& folder);

}  // namespace limner::platform
