// Weighted sums of models.
#pragma once

#include <vector>

#include "engine/weights/checkpoint/convert.h"

namespace limner::engine::weights {

struct BlendTerm {
  const ModelFolder* model;
  double weight = 1.0;
};

// The edit that makes every floating-point tensor the sum of weight times tensor over all terms, in
// float32; the first term's model is the one that is written, and other tensors are its own. The
// models must outlive it. It throws Failure(kInvalidModel) where a model lacks a tensor or has it
// in another shape.
EditTensor blend(std::vector<BlendTerm> terms);

}  // namespace limner::engine::weights
