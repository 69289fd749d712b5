#include "engine/kernels/normalization.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "engine/kernels/cpu_features.h"
#include "engine/kernels/cuda.h"
#include "engine/kernels/normalization_avx512.h"
#include "engine/kernels/parallel.h"

namespace limner::engine::kernels {
namespace {

bool has_avx512_rows(const at::Tensor& x) {
  return cpu_features().avx512 && x.device().is_cpu() && x.numel() > 0 &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

avx512::Element element_of(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat ? avx512::Element::kFloat32 : avx512::Element::kBfloat16;
}

// True when x is laid out densely as [batch][pixels][channels].
bool is_channels_last(const at::Tensor& x) {
  if (x.dim() == 4) return x.is_contiguous(at::MemoryFormat::ChannelsLast);
  return x.dim() == 3 && x.transpose(1, 2).is_contiguous();
}

// y = x * gain + shift per picture and channel, from the sums of each group.
struct Affine {
  std::vector<float> gain, shift;  // [batch * channels]
};

Affine affine_of(const avx512::GroupNorm& norm, const std::vector<avx512::Moments>& moments,
                 int64_t chunks, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  Affine affine;
  affine.gain.resize(static_cast<std::size_t>(norm.batch * norm.channels));
  affine.shift.resize(affine.gain.size());
  const float* w = weight.const_data_ptr<float>();
  const float* b = bias.const_data_ptr<float>();
  const int64_t width = norm.channels / norm.groups;
  const auto count = static_cast<double>(norm.pixels * width);
  for (int64_t i = 0; i < norm.batch * norm.groups; ++i) {
    const int64_t picture = i / norm.groups, group = i % norm.groups;
    avx512::Moments total;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const auto& part =
          moments[static_cast<std::size_t>((picture * chunks + chunk) * norm.groups + group)];
      total.sum += part.sum;
      total.squares += part.squares;
    }
    const double mean = total.sum / count;
    const double variance = std::max(0.0, total.squares / count - mean * mean);
    const double inverse = 1.0 / std::sqrt(variance + eps);
    for (int64_t c = group * width; c < (group + 1) * width; ++c) {
      const auto at_channel = static_cast<std::size_t>(picture * norm.channels + c);
      affine.gain[at_channel] = static_cast<float>(w[c] * inverse);
      affine.shift[at_channel] = static_cast<float>(b[c] - mean * inverse * w[c]);
    }
  }
  return affine;
}

at::Tensor group_norm_avx512(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const GroupNormOptions& options) {
  at::Tensor out = at::empty_like(x, at::MemoryFormat::Preserve);
  avx512::GroupNorm norm;
  norm.batch = x.size(0);
  norm.channels = x.size(1);
  norm.pixels = x.numel() / (norm.batch * norm.channels);
  norm.groups = options.groups;
  norm.element = element_of(x);
  norm.x = x.const_data_ptr();
  norm.out = out.mutable_data_ptr();
  norm.silu = options.silu;

  const int64_t chunks = (norm.pixels + avx512::kNormChunk - 1) / avx512::kNormChunk;
  const auto for_each_chunk = [&](const auto& work) {
    parallel_tasks(norm.batch * chunks, [&](int64_t task) {
      const int64_t begin = task % chunks * avx512::kNormChunk;
      work(task, task / chunks, begin, std::min(begin + avx512::kNormChunk, norm.pixels));
    });
  };
  std::vector<avx512::Moments> moments(static_cast<std::size_t>(norm.batch * chunks * norm.groups));
  for_each_chunk([&](int64_t task, int64_t picture, int64_t begin, int64_t end) {
    auto* scratch = static_cast<float*>(thread_scratch(Scratch::kTask, 12 * norm.channels));
    avx512::group_moments(norm, picture, begin, end, scratch, &moments[task * norm.groups]);
  });
  const Affine affine = affine_of(norm, moments, chunks, weight.to(at::kFloat).contiguous(),
                                  bias.to(at::kFloat).contiguous(), options.eps);
  for_each_chunk([&](int64_t, int64_t picture, int64_t begin, int64_t end) {
    avx512::scale_and_shift(norm, picture, begin, end, &affine.gain[picture * norm.channels],
                            &affine.shift[picture * norm.channels]);
  });
  return out;
}

at::Tensor geglu_avx512(const at::Tensor& any) {
  constexpr int64_t kTaskElements = 1 << 15;
  const at::Tensor x = any.contiguous();
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() /= 2;
  at::Tensor out = at::empty(shape, x.options());
  avx512::Geglu gate;
  gate.width = shape.back();
  gate.element = element_of(x);
  gate.x = x.const_data_ptr();
  gate.out = out.mutable_data_ptr();
  const int64_t rows = out.numel() / gate.width;
  const int64_t step = std::max<int64_t>(1, kTaskElements / gate.width);
  parallel_tasks((rows + step - 1) / step, [&](int64_t task) {
    avx512::geglu_rows(gate, task * step, std::min(rows, (task + 1) * step));
  });
  return out;
}

}  // namespace

at::Tensor group_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const GroupNormOptions& options) {
  TORCH_CHECK(x.dim() >= 3 && options.groups > 0 && x.size(1) % options.groups == 0 &&
                  weight.numel() == x.size(1) && bias.numel() == x.size(1),
              "[group_norm] want ", options.groups, " groups and a weight per channel, got ",
              x.sizes(), " and ", weight.sizes());
  if (has_avx512_rows(x) && is_channels_last(x)) {
    return group_norm_avx512(x, weight, bias, options);
  }
  if (auto y = group_norm_cuda(x, weight, bias, options)) return *y;
  at::Tensor y = at::group_norm(x, options.groups, weight.to(x.scalar_type()),
                                bias.to(x.scalar_type()), options.eps);
  return options.silu ? at::silu_(y) : y;
}

at::Tensor geglu(const at::Tensor& x) {
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) % 2 == 0, "[geglu] want an even last size, got ",
              x.sizes());
  if (has_avx512_rows(x)) return geglu_avx512(x);
  if (auto y = geglu_cuda(x)) return *y;
  const auto halves = x.chunk(2, -1);
  return halves[0] * at::gelu(halves[1]);
}

}  // namespace limner::engine::kernels
