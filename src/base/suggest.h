// Near names for error messages: "unknown sampler 'eular'; did you mean euler, euler_a?"
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace limner {

// Up to `most` of `known`, nearest first by edit distance (Levenshtein, bytes); names further than
// half the length of `wanted` are left out.
std::vector<std::string> nearest(std::string_view wanted, std::span<const std::string> known,
                                 std::size_t most = 3);

// " (did you mean a, b?)", or "" when nothing is near.
std::string did_you_mean(std::string_view wanted, std::span<const std::string> known);

}  // namespace limner
