// Looking for NaN and infinity in stored tensors, fast enough to be done at every load.
#pragma once

#include <cstddef>
#include <span>

#include "engine/weights/dtype.h"

namespace limner::engine::weights {

// Whether no element is NaN or infinite. `bytes` are whole elements and may be unaligned. True for
// every dtype but F16, BF16, F32 and F64: the others either have no such values or are not computed
// with.
bool all_finite(DType dtype, std::span<const std::byte> bytes);

}  // namespace limner::engine::weights
