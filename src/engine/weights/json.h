// The strict reader of base/json.h for the configs and headers of models.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/json.h"

namespace limner::engine::weights {

// Throws Failure(kInvalidModel) beginning with `where`. The limits' 16 MiB: no config of a
// checkpoint comes near.
nlohmann::json parse_json(std::string_view text, const std::string& where,
                          const JsonLimits& limits = {});

// The same for a file. Throws Failure(kNotFound) when there is none, kIo when it cannot be read.
nlohmann::json read_json(const std::filesystem::path& file, const std::string& where,
                         const JsonLimits& limits = {});

}  // namespace limner::engine::weights
