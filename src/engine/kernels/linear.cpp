#include "engine/kernels/linear.h"

#include <ATen/ATen.h>

#include "engine/kernels/gemm.h"

namespace limner::engine::kernels {
namespace {

std::optional<at::Tensor> optional_bias(const at::Tensor& bias) {
  return bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
}

at::Tensor linear_avx512(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor rows = x.reshape({-1, x.size(-1)});
  if (rows.stride(1) != 1) rows = rows.contiguous();
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  at::Tensor out = at::empty(shape, x.options().memory_format(at::MemoryFormat::Contiguous));
  const at::Tensor dense_weight = weight.stride(1) == 1 ? weight : weight.contiguous();
  const at::Tensor float_bias = bias.defined() ? bias.to(at::kFloat).contiguous() : bias;
  avx512::Gemm gemm;
  set_weight(gemm, dense_weight, float_bias);
  gemm.m = rows.size(0);
  gemm.x = rows.const_data_ptr<float>();
  gemm.x_stride = rows.stride(0);
  gemm.out = out.mutable_data_ptr<float>();
  gemm.out_stride = gemm.n;
  run_gemm(gemm);
  return out;
}

// Widens a few output rows of the weight at a time, so that no second copy of the whole weight ever
// exists.
at::Tensor linear_in_pieces(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  constexpr int64_t kPieceElements = int64_t{1} << 20;
  const int64_t out_width = weight.size(0);
  const int64_t piece =
      std::max<int64_t>(16, kPieceElements / std::max<int64_t>(1, weight.size(1)));
  if (piece >= out_width) return at::linear(x, weight.to(x.scalar_type()), optional_bias(bias));
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = out_width;
  at::Tensor out = at::empty(shape, x.options());
  for (int64_t begin = 0; begin < out_width; begin += piece) {
    const int64_t length = std::min(piece, out_width - begin);
    const at::Tensor part = weight.narrow(0, begin, length).to(x.scalar_type());
    const at::Tensor part_bias = bias.defined() ? bias.narrow(0, begin, length) : bias;
    out.narrow(-1, begin, length).copy_(at::linear(x, part, optional_bias(part_bias)));
  }
  return out;
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  TORCH_CHECK(weight.dim() == 2 && x.dim() >= 1 && x.size(-1) == weight.size(1),
              "[linear] want a weight of ", x.sizes(), "'s last size, got ", weight.sizes());
  TORCH_CHECK(!bias.defined() || bias.numel() == weight.size(0), "[linear] want a bias of ",
              weight.size(0), " numbers, got ", bias.numel());
  if (has_gemm(x, weight)) return linear_avx512(x, weight, bias);
  if (x.scalar_type() == weight.scalar_type()) return at::linear(x, weight, optional_bias(bias));
  return linear_in_pieces(x, weight, bias);
}

}  // namespace limner::engine::kernels
