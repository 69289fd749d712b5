// Small files that are never half there.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/error.h"

namespace limner {

// Writes PATH.new, flushes it and renames it over `path`. One writer at a time.
// Throws Failure(kIo).
void write_atomically(const std::filesystem::path& path, std::string_view text);

// Makes names that were added to or renamed in a folder outlive a power cut, where its file system
// can.
void sync_folder(const std::filesystem::path& folder);

}  // namespace limner
