// A stored case of module parity: tests/parity/fixtures/modules/<name>/ with config.json,
// weights.safetensors (the tiny model) and tensors.safetensors (inputs and what the reference made
// of them), as tools/parity/module_fixtures.py writes them.
#pragma once

#include <ATen/ATen.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/nn/tensor_source.h"
#include "engine/weights/config.h"
#include "engine/weights/weights.h"

namespace limner::parity {

class Fixture {
 public:
  explicit Fixture(const std::string& name)
      : folder_(std::filesystem::path(LIMNER_SOURCE_DIR) / "tests/parity/fixtures/modules" / name),
        weights_(
            engine::weights::Weights::open_file(folder_ / "weights.safetensors").value_or_throw()),
        tensors_(
            engine::weights::Weights::open_file(folder_ / "tensors.safetensors").value_or_throw()) {
  }

  const std::filesystem::path& folder() const { return folder_; }
  engine::weights::Config config() const {
    return engine::weights::Config::read(folder_ / "config.json");
  }
  engine::nn::TensorSource source(const engine::nn::Placement& placement = {}) const {
    return engine::nn::TensorSource(weights_, placement);
  }
  const std::shared_ptr<const engine::weights::Weights>& weights() const { return weights_; }
  bool has(const std::string& name) const { return tensors_->find(name) != nullptr; }

  // A copy of a stored input or expectation; float32 or int64.
  at::Tensor tensor(const std::string& name) const {
    const engine::weights::TensorView* view = tensors_->find(name);
    if (view == nullptr)
      throw Failure(ErrorCode::kNotFound, folder_.string() + " has no tensor " + name);
    const bool integer = view->dtype == engine::weights::DType::kI64;
    at::Tensor copy = at::empty(view->shape, integer ? at::kLong : at::kFloat);
    LIMNER_CHECK(copy.nbytes() == view->bytes.size(), "fixtures hold float32 and int64");
    if (copy.nbytes() != 0) std::memcpy(copy.mutable_data_ptr(), view->bytes.data(), copy.nbytes());
    return copy;
  }

 private:
  std::filesystem::path folder_;
  std::shared_ptr<const engine::weights::Weights> weights_, tensors_;
};

// Layers from tensors made on the spot (float32, bfloat16, float16), by way of a file in the
// temporary folder.
inline engine::nn::TensorSource source_of(const std::map<std::string, at::Tensor>& tensors,
                                          const engine::nn::Placement& placement = {}) {
  using engine::weights::DType;
  static std::atomic<int> counter{0};
  const std::filesystem::path file =
      std::filesystem::temp_directory_path() / ("limner_test_" + std::to_string(::getpid()) + "_" +
                                                std::to_string(counter++) + ".safetensors");
  std::vector<at::Tensor> kept;
  std::vector<engine::weights::TensorToWrite> list;
  for (const auto& [name, tensor] : tensors) {
    kept.push_back(tensor.contiguous());
    const at::ScalarType type = tensor.scalar_type();
    const DType dtype = type == at::kHalf       ? DType::kF16
                        : type == at::kBFloat16 ? DType::kBF16
                                                : DType::kF32;
    list.push_back(
        {name,
         dtype,
         tensor.sizes().vec(),
         {static_cast<const std::byte*>(kept.back().const_data_ptr()), kept.back().nbytes()}});
  }
  engine::weights::write_safetensors(file, std::move(list)).value_or_throw();
  auto weights = engine::weights::Weights::open_file(file).value_or_throw();
  std::filesystem::remove(file);  // the map stays
  return engine::nn::TensorSource(std::move(weights), placement);
}

// max |got - want| / max |want|; infinite where the shapes differ or a value is not finite.
inline double relative_error(const at::Tensor& got, const at::Tensor& want) {
  if (got.sizes() != want.sizes()) return INFINITY;
  const at::Tensor wide = got.to(at::kDouble);
  if (!wide.isfinite().all().item<bool>()) return INFINITY;
  const at::Tensor reference = want.to(at::kDouble);
  return ((wide - reference).abs().max() / reference.abs().max().clamp_min(1e-30)).item<double>();
}

}  // namespace limner::parity
