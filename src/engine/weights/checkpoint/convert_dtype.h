// Elements of one dtype as another.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "engine/weights/safetensors.h"

namespace limner::engine::weights {

// F64, F32, F16 and BF16 can become one another by way of float32, rounded to nearest even.
bool is_convertible(DType dtype);

// `bytes` of `from` as float32; they may be unaligned.
std::vector<float> to_floats(DType from, std::span<const std::byte> bytes);
// Throws Failure(kInvalidArgument), naming `name`, when a finite value becomes infinite: too large
// for float16.
std::vector<std::byte> from_floats(DType to, std::span<const float> values,
                                   const std::string& name);

}  // namespace limner::engine::weights
