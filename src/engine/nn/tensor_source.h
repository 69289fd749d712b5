// TensorSource: where layers get their tensors from while a model is built.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>

#include "engine/weights/weights.h"

namespace limner::engine::nn {

// Where tensors live and in which dtypes. `storage` holds the weights; `compute` is the dtype of
// activations and arithmetic (see kernels::has_fast_bfloat16 for why they may differ).
struct Placement {
  at::ScalarType storage = at::kFloat;
  at::ScalarType compute = at::kFloat;
  at::Device device = at::kCPU;
  bool sequential = false;  // matrices stay on the host and come to the device for each use
};

// A view of Weights at a dotted prefix ("down_blocks.0.resnets.1"). Children share one ledger of
// the names taken, so that finish() can name what a model did not use. Used by one thread while a
// model is built.
class TensorSource {
 public:
  TensorSource(std::shared_ptr<const weights::Weights> weights, Placement placement);

  TensorSource at(std::string_view child) const;
  TensorSource at(std::size_t index) const;
  bool has(std::string_view name) const;

  // The tensor at `name`, checked against `shape`, on the device, in the storage dtype (zero copy
  // over the map where dtype and device allow). Throws Failure(kInvalidModel) naming the tensor
  // when it is missing (with the nearest name), has another shape, or holds a NaN or infinity.
  // Stored trailing ones are dropped: the matrix of a 1x1 convolution [out, in, 1, 1] serves as one
  // of a linear layer.
  at::Tensor take(std::string_view name, at::IntArrayRef shape) const;
  // As take, for matrices of convolutions: [out, in, kh, kw] in channels-last memory format.
  at::Tensor take_channels_last(std::string_view name, at::IntArrayRef shape) const;
  // As take, but as the file has it: in its own dtype, on the host.
  at::Tensor take_stored(std::string_view name, at::IntArrayRef shape) const;
  // As take, in the compute dtype: biases, norms, embeddings.
  at::Tensor take_small(std::string_view name, at::IntArrayRef shape) const;

  // Tells the system that the pages of a taken tensor are not needed soon, because it was copied
  // elsewhere.
  void release(std::string_view name) const;

  // Marks a tensor as known and unneeded (e.g. position_ids buffers of old checkpoints).
  void skip(std::string_view name) const;
  // At the root, when the model is built: throws Failure(kInvalidModel) naming left-over tensors.
  void finish() const;

  const Placement& placement() const;
  std::string name_of(std::string_view name) const;  // full dotted name
  const std::string& prefix() const { return prefix_; }

 private:
  struct Ledger;
  TensorSource(std::shared_ptr<Ledger> ledger, std::string prefix);
  std::shared_ptr<Ledger> ledger_;
  std::string prefix_;
};

// A stored matrix on the placement's device, in its storage dtype; one of a convolution
// ([out, in, kh, kw]) in channels-last memory format.
at::Tensor place_matrix(const at::Tensor& stored, const Placement& placement);

}  // namespace limner::engine::nn
