// How much room there is before something large is begun.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/error.h"

namespace limner::platform {

// Throws Failure(kIo), saying how much is free, when the disk of `folder` has not that many bytes
// for us. Where the disk cannot be asked, writing will tell.
void require_space(const std::filesystem::path& folder, std::uint64_t bytes);

}  // namespace limner::platform
