// human_bytes: an amount of memory or of a file, as a person reads it.
#pragma once

#include <cstdint>
#include <string>

namespace limner {

std::string human_bytes(std::uint64_t bytes);  // "512 B", "14.2 MiB"

}  // namespace limner
