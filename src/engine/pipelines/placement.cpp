#include "engine/pipelines/placement.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <fmt/format.h>

#include "base/system_memory.h"
#include "engine/kernels/cpu_features.h"

namespace limner::engine::pipelines {
namespace {

at::Device find_device(const std::string& name) {
  const bool has_cuda = at::globalContext().hasCUDA();
  if (name == "cpu" || (name == "auto" && !has_cuda)) return at::kCPU;
  if (name == "auto" || name == "cuda") {
    if (has_cuda) return {at::kCUDA, 0};
  } else if (name.rfind("cuda:", 0) != 0 || name.size() == 5 || name.size() > 7 ||
             name.find_first_not_of("0123456789", 5) != std::string::npos) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("device '{}' is not known; want auto, cpu, cuda or cuda:N",
                              name.substr(0, 64)));
  }
  if (!has_cuda) {
    throw Failure(ErrorCode::kUnsupported,
                  "device '" + name +
                      "': this build has no CUDA, or the machine has no NVIDIA driver; build the "
                      "`cuda` preset against a CUDA libtorch, or use --device cpu");
  }
  const int index = name == "cuda" ? 0 : std::stoi(name.substr(5));
  const auto count = static_cast<int>(at::detail::getCUDAHooks().deviceCount());
  if (index >= count) {
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("device '{}': this machine has {} CUDA device{}", name, count,
                              count == 1 ? "" : "s"));
  }
  return {at::kCUDA, static_cast<at::DeviceIndex>(index)};
}

nn::Placement place_on_cpu(Precision precision, const CheckpointFacts& checkpoint) {
  constexpr std::uint64_t kSmall = std::uint64_t{1} << 30;
  if (precision == Precision::kAuto) {
    precision = checkpoint.weight_bytes <= kSmall ? Precision::kFloat32
                : checkpoint.dtype == "F16"       ? Precision::kFloat16
                                                  : Precision::kBFloat16;
  }
  if (precision == Precision::kFloat32) return {at::kFloat, at::kFloat, at::kCPU};
  // No CPU here multiplies float16 fast: where bfloat16 is fast both formats are computed in it,
  // elsewhere they are stored as they are and computed in float32.
  if (kernels::has_fast_bfloat16()) return {at::kBFloat16, at::kBFloat16, at::kCPU};
  return {precision == Precision::kFloat16 ? at::kHalf : at::kBFloat16, at::kFloat, at::kCPU};
}

nn::Placement place_on_cuda(Precision precision, at::Device device,
                            const CheckpointFacts& checkpoint) {
  if (precision == Precision::kAuto) {
    precision = checkpoint.dtype == "BF16" ? Precision::kBFloat16 : Precision::kFloat16;
  }
  const at::ScalarType dtype = precision == Precision::kFloat32    ? at::kFloat
                               : precision == Precision::kBFloat16 ? at::kBFloat16
                                                                   : at::kHalf;
  return {dtype, dtype, device};
}

}  // namespace

nn::Placement place(Precision precision, const std::string& device,
                    const CheckpointFacts& checkpoint) {
  const at::Device found = find_device(device);
  return found.is_cuda() ? place_on_cuda(precision, found, checkpoint)
                         : place_on_cpu(precision, checkpoint);
}

Offload resolve_offload(Offload offload, at::Device device) {
  constexpr std::uint64_t kRoomy = 20'000'000'000;
  if (offload != Offload::kAuto) return offload;
  if (!device.is_cuda()) return Offload::kNone;
  const auto [free, total] = at::getDeviceAllocator(device.type())->getMemoryInfo(device.index());
  return total < kRoomy ? Offload::kModel : Offload::kNone;
}

std::uint64_t free_memory(const std::string& device) {
  const at::Device found = find_device(device);
  if (found.is_cpu()) return available_memory_bytes();
  return at::getDeviceAllocator(found.type())->getMemoryInfo(found.index()).first;
}

std::string dtype_name(at::ScalarType dtype) {
  return dtype == at::kFloat ? "float32" : dtype == at::kBFloat16 ? "bfloat16" : "float16";
}

}  // namespace limner::engine::pipelines
