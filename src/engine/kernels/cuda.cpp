#include "engine/kernels/cuda.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "engine/kernels/group_norm_silu.h"

namespace limner::engine::kernels {
namespace {

std::optional<cuda::Element> element_of(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return cuda::Element::kFloat32;
    case at::kHalf:
      return cuda::Element::kFloat16;
    case at::kBFloat16:
      return cuda::Element::kBfloat16;
    default:
      return std::nullopt;
  }
}

bool is_channels_last(const at::Tensor& x) {
  if (x.dim() == 4) return x.is_contiguous(at::MemoryFormat::ChannelsLast);
  return x.dim() == 3 && x.transpose(1, 2).is_contiguous();
}

cuda::Stream stream_of(const at::Tensor& x) {
  return c10::cuda::getCurrentCUDAStream(x.get_device()).stream();
}

}  // namespace

std::optional<at::Tensor> group_norm_cuda(const at::Tensor& x, const at::Tensor& weight,
                                          const at::Tensor& bias, const GroupNormOptions& options) {
  const auto element = element_of(x);
  if (!x.is_cuda() || !element || x.numel() == 0 || !is_channels_last(x)) return std::nullopt;
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor out = at::empty_like(x, at::MemoryFormat::Preserve);
  const at::Tensor w = weight.to(at::kFloat).contiguous(), b = bias.to(at::kFloat).contiguous();
  cuda::GroupNorm norm;
  norm.batch = x.size(0);
  norm.channels = x.size(1);
  norm.pixels = x.numel() / (norm.batch * norm.channels);
  norm.groups = options.groups;
  norm.eps = options.eps;
  norm.silu = options.silu;
  norm.element = *element;
  norm.x = x.const_data_ptr();
  norm.out = out.mutable_data_ptr();
  norm.weight = w.const_data_ptr<float>();
  norm.bias = b.const_data_ptr<float>();
  const at::Tensor workspace =
      at::empty({cuda::group_norm_workspace(norm)}, x.options().dtype(at::kFloat));
  const char* error = cuda::group_norm(norm, workspace.mutable_data_ptr<float>(), stream_of(x));
  TORCH_CHECK(error == nullptr, "[group_norm] the CUDA kernel did not start: ", error);
  return out;
}

std::optional<at::Tensor> geglu_cuda(const at::Tensor& any) {
  const auto element = element_of(any);
  if (!any.is_cuda() || !element || any.numel() == 0) return std::nullopt;
  const c10::cuda::CUDAGuard guard(any.device());
  const at::Tensor x = any.contiguous();
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() /= 2;
  at::Tensor out = at::empty(shape, x.options());
  cuda::Geglu gate;
  gate.width = shape.back();
  gate.rows = out.numel() / gate.width;
  gate.element = *element;
  gate.x = x.const_data_ptr();
  gate.out = out.mutable_data_ptr();
  const char* error = cuda::geglu(gate, stream_of(x));
  TORCH_CHECK(error == nullptr, "[geglu] the CUDA kernel did not start: ", error);
  return out;
}

}  // namespace limner::engine::kernels
