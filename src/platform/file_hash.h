// SHA-256 of files that may be large.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "base/error.h"

namespace limner::platform {

// 64 lower-case hexadecimal digits. `between` is called for every mebibyte and may throw, to stop.
// Throws Failure(kIo).
std::string file_sha256(
    const std::filesystem::path& file, const std::function<void()>& between = [] {});

}  // namespace limner::platform
