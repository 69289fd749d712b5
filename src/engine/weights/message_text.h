// Small pieces of error messages.
#pragma once

#include <filesystem>
#include <string>

#include "base/quote.h"

namespace limner::engine::weights {

using limner::quote;

// "unet/config.json": the folder and the file name, which is what a message needs to say.
std::string short_name(const std::filesystem::path& file);

}  // namespace limner::engine::weights
