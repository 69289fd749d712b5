// For tests of this room: adapter files and small models made on the spot.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>

#include "engine/lora/model_layers.h"
#include "engine/weights/testing.h"

namespace limner::engine::lora::testing {

using Tensors = std::map<std::string, at::Tensor>;

// Writes float32, float16, bfloat16, int64 and uint8 tensors.
inline std::filesystem::path write_tensors(
    const std::filesystem::path& file, const Tensors& tensors,
    const std::map<std::string, std::string>& metadata = {}) {
  using weights::DType;
  std::vector<at::Tensor> kept;
  std::vector<weights::TensorToWrite> list;
  for (const auto& [name, tensor] : tensors) {
    kept.push_back(tensor.contiguous());
    const at::ScalarType type = tensor.scalar_type();
    const DType dtype = type == at::kHalf       ? DType::kF16
                        : type == at::kBFloat16 ? DType::kBF16
                        : type == at::kLong     ? DType::kI64
                        : type == at::kByte     ? DType::kU8
                                                : DType::kF32;
    list.push_back(
        {name,
         dtype,
         tensor.sizes().vec(),
         {static_cast<const std::byte*>(kept.back().const_data_ptr()), kept.back().nbytes()}});
  }
  weights::write_safetensors(file, std::move(list), metadata).value_or_throw();
  return file;
}

inline std::shared_ptr<const weights::Weights> network(
    const weights::testing::TemporaryFolder& folder, const std::string& name,
    const Tensors& tensors) {
  return weights::Weights::open_file(
             write_tensors(folder.path() / (name + ".safetensors"), tensors))
      .value_or_throw();
}

// All tensors of a file as they are stored; copies.
inline Tensors read_tensors(const std::filesystem::path& file) {
  using weights::DType;
  const auto opened = weights::SafetensorsFile::open(file).value_or_throw();
  Tensors tensors;
  for (const auto& [name, view] : opened.tensors()) {
    const at::ScalarType type = view.dtype == DType::kF16    ? at::kHalf
                                : view.dtype == DType::kBF16 ? at::kBFloat16
                                : view.dtype == DType::kI64  ? at::kLong
                                : view.dtype == DType::kU8   ? at::kByte
                                                             : at::kFloat;
    at::Tensor copy = at::empty(view.shape, type);
    std::memcpy(copy.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    tensors[name] = copy;
  }
  return tensors;
}

}  // namespace limner::engine::lora::testing
