// Small pieces of error messages.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace limner::engine::weights {

// Text from a file made fit for a one-line message: quotes around it, control characters and broken
// UTF-8 as '?', and the middle of very long ones left out.
std::string quote(std::string_view text);

// "unet/config.json": the folder and the file name, which is what a message needs to say.
std::string short_name(const std::filesystem::path& file);

}  // namespace limner::engine::weights
