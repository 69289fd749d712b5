// SHA-256 of files that may be large.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "base/error.h"
#include "base/sha256.h"

namespace limner {

// Takes a file's bytes into `hash`. Read, not mapped: hashing must not count as memory of a model,
// and must not die when a file shrinks. `between` is called for every mebibyte and may throw, to
// stop. Fails with kIo.
Result<void> hash_file(
    const std::filesystem::path& file, Sha256& hash, const std::function<void()>& between = [] {});

// The same for one file: 64 lower-case hexadecimal digits.
Result<std::string> file_sha256(
    const std::filesystem::path& file, const std::function<void()>& between = [] {});

}  // namespace limner
