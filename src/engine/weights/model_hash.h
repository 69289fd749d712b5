// The hash that a model is told by, remembered between runs.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "base/error.h"

namespace limner::engine::weights {

// Inspection::sha256 of `model`. Reading all of a large model takes seconds: the answer is kept in
// the folder `cache` ("": nowhere) and stays good while path, size and time of every file do. A
// cache that cannot be written costs time at the next call, nothing else. `between` is called for
// every mebibyte and may throw Failure, to stop. Fails as inspect() does.
Result<std::string> model_sha256(
    const std::filesystem::path& model, const std::filesystem::path& cache,
    const std::function<void()>& between = [] {});

}  // namespace limner::engine::weights
