// Reading JSON that came from outside: strict, bounded, and with one clear sentence when it is
// broken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::engine::weights {

struct JsonLimits {
  std::uint64_t bytes = 16u << 20;  // of a file: no config of a checkpoint comes near
  std::size_t depth = 64;           // arrays and objects inside each other
  std::size_t values = 1'000'000;   // of all kinds: bounds the memory of the parsed form
};

// Refuses what JSON forbids (comments, NaN, trailing text, broken UTF-8) and also duplicate keys,
// because parsers differ in which of the two they believe. Throws Failure(kInvalidModel) beginning
// with `where`.
nlohmann::json parse_json(std::string_view text, const std::string& where,
                          const JsonLimits& limits = {});

// The same for a file. Throws Failure(kNotFound) when there is none, kIo when it cannot be read.
nlohmann::json read_json(const std::filesystem::path& file, const std::string& where,
                         const JsonLimits& limits = {});

}  // namespace limner::engine::weights
