// One module's tensors, checked against the layer they are for.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/lora/adapter_file.h"

namespace limner::engine::lora {

// Over the view's bytes, which `memory` keeps; a copy where they lie at an odd address or `memory`
// is nullptr. Not to be written to.
at::Tensor tensor_of(const weights::TensorView& view, const std::shared_ptr<const void>& memory);

std::string shape_text(at::IntArrayRef shape);  // "[4, 2]"
// Failure(kInvalidModel): "'LAYER (PART)' does not fit the layer: want ..., got ...".
[[noreturn]] void mismatch(const Module& module, const std::string& part, const std::string& want,
                           at::IntArrayRef got);

// `module` must outlive it. What does not fit throws as mismatch.
class ModuleReader {
 public:
  ModuleReader(const Module& module, at::IntArrayRef shape)
      : module_(module), shape_(shape.vec()) {}

  int64_t out() const { return shape_[0]; }
  int64_t in() const { return shape_[1]; }
  int64_t positions() const { return shape_.size() == 4 ? shape_[2] * shape_[3] : 1; }
  bool is_convolution() const { return shape_.size() == 4; }
  const std::vector<int64_t>& shape() const { return shape_; }
  const Module& module() const { return module_; }

  at::Tensor raw(const char* part) const;  // as stored
  // A matrix of `rows` x `columns` (-1: any), convolutions flattened.
  at::Tensor matrix(const char* part, int64_t rows, int64_t columns) const;
  at::Tensor floats(const char* part, int64_t rows, int64_t columns) const;  // in float32
  at::Tensor numbers(const char* part, int64_t count) const;  // `count` of any shape, float32

 private:
  const Module& module_;
  std::vector<int64_t> shape_;
};

}  // namespace limner::engine::lora
