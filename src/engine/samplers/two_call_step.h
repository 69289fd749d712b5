// Samplers with two model calls per step (heun, kdpm2, kdpm2_a) list their inner values twice.
#pragma once

#include <cstddef>
#include <vector>

namespace limner::engine::samplers {

// x0, x1, x1, x2, x2, ... and `last_copies` of the last value. `values` has at least two.
inline std::vector<double> doubled(const std::vector<double>& values, std::size_t last_copies) {
  std::vector<double> result = {values.front()};
  for (std::size_t i = 1; i + 1 < values.size(); ++i) result.insert(result.end(), 2, values[i]);
  result.insert(result.end(), last_copies, values.back());
  return result;
}

}  // namespace limner::engine::samplers
