#include "engine/nn/matrix.h"

#include <ATen/ATen.h>

namespace limner::engine::nn {

Matrix::Matrix(const std::vector<TensorSource>& parts, at::IntArrayRef shape)
    : placement_(parts.front().placement()) {
  if (placement_.sequential) {
    for (const TensorSource& part : parts) stored_.push_back(part.take_stored("weight", shape));
    return;
  }
  std::vector<at::Tensor> placed;
  for (const TensorSource& part : parts) {
    placed.push_back(shape.size() == 4 ? part.take_channels_last("weight", shape)
                                       : part.take("weight", shape));
  }
  if (placed.size() == 1) {
    resident_ = placed.front();
    return;
  }
  resident_ = at::cat(placed);
  for (const TensorSource& part : parts) part.release("weight");
}

at::Tensor Matrix::brought() const {
  std::vector<at::Tensor> placed;
  for (const at::Tensor& part : stored_) placed.push_back(place_matrix(part, placement_));
  return placed.size() == 1 ? placed.front() : at::cat(placed);
}

}  // namespace limner::engine::nn
