// From what was asked for (a precision, a device) to where tensors live and in which dtypes.
#pragma once

#include <string>

#include "engine/engine.h"
#include "engine/nn/tensor_source.h"

namespace limner::engine::pipelines {

// `weight_bytes` and `checkpoint_dtype` ("F32", "F16", "BF16") decide what kAuto means. Throws
// Failure(kUnsupported) for a device this build or machine does not have, saying what is missing,
// and kInvalidArgument for a name that is none.
struct CheckpointFacts {
  std::uint64_t weight_bytes = 0;
  std::uint64_t largest_component_bytes = 0;
  std::string dtype;
};
nn::Placement place(Precision precision, const std::string& device,
                    const CheckpointFacts& checkpoint);

// What kAuto means on this device.
Offload resolve_offload(Offload offload, at::Device device);

// Throws Failure as place() does for a device that is not here.
std::uint64_t free_memory(const std::string& device);

std::string dtype_name(at::ScalarType dtype);  // "float32"

}  // namespace limner::engine::pipelines
