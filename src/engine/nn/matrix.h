// Matrix: the weight of a linear layer or a convolution, wherever it waits between its uses.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/nn/tensor_source.h"

namespace limner::engine::nn {

// Immutable; get() may be called from many threads. With Placement::sequential the matrix stays as
// the file has it, in its map, and every get() brings a copy to the device; else it lies there.
class Matrix {
 public:
  // The tensors "weight" of `parts`, each of `shape`, one above the other. Of a convolution
  // ([out, in, kh, kw]) in channels-last memory format.
  Matrix(const std::vector<TensorSource>& parts, at::IntArrayRef shape);

  // [out * parts, in] or [out * parts, in, kh, kw], on the device, in the storage dtype.
  at::Tensor get() const { return resident_.defined() ? resident_ : brought(); }

 private:
  at::Tensor brought() const;

  Placement placement_;
  at::Tensor resident_;
  std::vector<at::Tensor> stored_;
};

}  // namespace limner::engine::nn
