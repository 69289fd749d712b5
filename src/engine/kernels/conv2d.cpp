#include "engine/kernels/conv2d.h"

#include <ATen/ATen.h>

#include "engine/kernels/gemm.h"

namespace limner::engine::kernels {
namespace {

constexpr int64_t kLeastChannels = 16;

int64_t out_size(int64_t in, int64_t kernel, const Conv2dOptions& options) {
  return (in + 2 * options.padding - kernel) / options.stride + 1;
}

at::Tensor conv2d_avx512(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const Conv2dOptions& options) {
  const at::Tensor picture = x.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor dense_weight = weight.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor float_bias = bias.defined() ? bias.to(at::kFloat).contiguous() : bias;
  avx512::Patches patches;
  patches.height = x.size(2);
  patches.width = x.size(3);
  patches.channels = x.size(1);
  patches.kernel_height = weight.size(2);
  patches.kernel_width = weight.size(3);
  patches.stride = options.stride;
  patches.padding = options.padding;
  patches.out_height = out_size(patches.height, patches.kernel_height, options);
  patches.out_width = out_size(patches.width, patches.kernel_width, options);
  at::Tensor out = at::empty({x.size(0), weight.size(0), patches.out_height, patches.out_width},
                             x.options().memory_format(at::MemoryFormat::ChannelsLast));
  avx512::Gemm gemm;
  set_weight(gemm, dense_weight, float_bias);
  gemm.weight_stride = gemm.k;  // a channels-last weight is dense over (row, column, channel)
  gemm.m = x.size(0) * patches.out_height * patches.out_width;
  gemm.x = picture.const_data_ptr<float>();
  gemm.out = out.mutable_data_ptr<float>();
  gemm.out_stride = gemm.n;
  const bool pointwise = patches.kernel_height == 1 && patches.kernel_width == 1 &&
                         options.stride == 1 && options.padding == 0;
  if (pointwise) {
    gemm.x_stride = patches.channels;
  } else {
    gemm.patches = &patches;
  }
  run_gemm(gemm);
  return x.suggest_memory_format() == at::MemoryFormat::ChannelsLast ? out : out.contiguous();
}

}  // namespace

at::Tensor conv2d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const Conv2dOptions& options) {
  TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && x.size(1) == weight.size(1),
              "[conv2d] want a weight over the channels of ", x.sizes(), ", got ", weight.sizes());
  TORCH_CHECK(!bias.defined() || bias.numel() == weight.size(0), "[conv2d] want a bias of ",
              weight.size(0), " numbers, got ", bias.numel());
  TORCH_CHECK(x.size(2) + 2 * options.padding >= weight.size(2) &&
                  x.size(3) + 2 * options.padding >= weight.size(3),
              "[conv2d] want a picture no smaller than the kernel, got ", x.sizes());
  // With a handful of channels on one side the product leaves most lanes empty, and the weight is
  // small.
  const bool narrow = weight.size(0) < kLeastChannels || weight.size(1) < kLeastChannels;
  if (has_gemm(x, weight) && !narrow) return conv2d_avx512(x, weight, bias, options);
  return at::conv2d(x, weight.to(x.scalar_type()),
                    bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt,
                    {options.stride, options.stride}, {options.padding, options.padding});
}

}  // namespace limner::engine::kernels
