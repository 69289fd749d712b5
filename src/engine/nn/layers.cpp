#include "engine/nn/layers.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "base/error.h"
#include "base/suggest.h"
#include "engine/kernels/linear.h"
#include "engine/kernels/normalization.h"

namespace limner::engine::nn {
namespace {

at::Tensor rows_of(const at::Tensor& t, const LowRankBranch& branch) {
  return t.narrow(0, branch.first_row, branch.last_row - branch.first_row);
}

}  // namespace

Linear::Linear(const TensorSource& source, const Size& size)
    : names_{source.prefix()},
      part_width_(size.out),
      weight_(source.take("weight", {size.out, size.in})) {
  if (size.bias) bias_ = source.take_small("bias", {size.out});
}

Linear Linear::fused(const std::vector<TensorSource>& parts, const Size& size) {
  Linear result;
  result.part_width_ = size.out;
  std::vector<at::Tensor> weights, biases;
  for (const TensorSource& part : parts) {
    result.names_.push_back(part.prefix());
    weights.push_back(part.take("weight", {size.out, size.in}));
    if (size.bias) biases.push_back(part.take_small("bias", {size.out}));
  }
  result.weight_ = at::cat(weights);
  for (const TensorSource& part : parts) part.release("weight");
  if (size.bias) result.bias_ = at::cat(biases);
  return result;
}

at::Tensor Linear::operator()(const at::Tensor& x, const RowAdapters& adapters) const {
  at::Tensor y = kernels::linear(x, weight_, bias_);
  if (adapters.empty()) return y;
  for (std::size_t part = 0; part < names_.size(); ++part) {
    const auto* branches = adapters.find(names_[part]);
    if (branches == nullptr) continue;
    const at::Tensor slice = y.narrow(-1, static_cast<int64_t>(part) * part_width_, part_width_);
    for (const LowRankBranch& branch : *branches) {
      const at::Tensor inner =
          kernels::linear(rows_of(x, branch), branch.down.to(x.scalar_type()), {});
      rows_of(slice, branch)
          .add_(kernels::linear(inner, branch.up.to(x.scalar_type()), {}), branch.scale);
    }
  }
  return y;
}

Conv2d::Conv2d(const TensorSource& source, const Size& size)
    : name_(source.prefix()),
      options_{.stride = size.stride, .padding = size.padding},
      weight_(source.take_channels_last("weight", {size.out, size.in, size.kernel, size.kernel})),
      bias_(source.take_small("bias", {size.out})) {}

at::Tensor Conv2d::operator()(const at::Tensor& x, const RowAdapters& adapters) const {
  at::Tensor y = kernels::conv2d(x, weight_, bias_, options_);
  if (adapters.empty()) return y;
  if (const auto* branches = adapters.find(name_)) {
    for (const LowRankBranch& branch : *branches) {
      const at::Tensor inner =
          kernels::conv2d(rows_of(x, branch), branch.down.to(x.scalar_type()), {}, options_);
      rows_of(y, branch).add_(kernels::conv2d(inner, branch.up.to(x.scalar_type()), {}, {}),
                              branch.scale);
    }
  }
  return y;
}

GroupNorm::GroupNorm(const TensorSource& source, const Size& size)
    : size_(size),
      weight_(source.take_small("weight", {size.channels})),
      bias_(source.take_small("bias", {size.channels})) {
  if (size.groups < 1 || size.channels % size.groups != 0) {
    throw Failure(ErrorCode::kInvalidModel, source.prefix() + ": " + std::to_string(size.channels) +
                                                " channels cannot be normalised in " +
                                                std::to_string(size.groups) + " groups");
  }
}

at::Tensor GroupNorm::operator()(const at::Tensor& x) const {
  return kernels::group_norm(x, weight_, bias_, {.groups = size_.groups, .eps = size_.eps});
}

at::Tensor GroupNorm::silu(const at::Tensor& x) const {
  return kernels::group_norm(x, weight_, bias_,
                             {.groups = size_.groups, .eps = size_.eps, .silu = true});
}

LayerNorm::LayerNorm(const TensorSource& source, int64_t width, double eps)
    : eps_(eps),
      weight_(source.take_small("weight", {width})),
      bias_(source.take_small("bias", {width})) {}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, {weight_.size(0)}, weight_, bias_, eps_);
}

Embedding::Embedding(const TensorSource& source, const Size& size)
    : table_(source.take("weight", {size.rows, size.width})),
      compute_(source.placement().compute) {}

at::Tensor Embedding::operator()(const at::Tensor& ids) const {
  return at::embedding(table_, ids).to(compute_);
}

namespace {

struct NamedActivation {
  const char* name;
  Activation function;
};

at::Tensor silu(const at::Tensor& x) {
  return at::silu(x);
}
at::Tensor gelu(const at::Tensor& x) {
  return at::gelu(x);
}
at::Tensor gelu_tanh(const at::Tensor& x) {
  return at::gelu(x, "tanh");
}
at::Tensor quick_gelu(const at::Tensor& x) {
  return at::mul(x, 1.702).sigmoid_().mul_(x);
}
at::Tensor relu(const at::Tensor& x) {
  return at::relu(x);
}
at::Tensor mish(const at::Tensor& x) {
  return at::mish(x);
}

constexpr NamedActivation kActivations[] = {
    {"silu", silu},
    {"swish", silu},
    {"gelu", gelu},
    {"gelu_new", gelu_tanh},
    {"gelu_pytorch_tanh", gelu_tanh},
    {"quick_gelu", quick_gelu},
    {"relu", relu},
    {"mish", mish},
};

}  // namespace

Activation activation(const std::string& name, const std::string& where) {
  std::string lower = name;
  std::ranges::transform(lower, lower.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::vector<std::string> known;
  for (const NamedActivation& entry : kActivations) {
    if (lower == entry.name) return entry.function;
    known.emplace_back(entry.name);
  }
  throw Failure(ErrorCode::kInvalidModel,
                where + ": unknown activation '" + name + "'" + did_you_mean(lower, known));
}

}  // namespace limner::engine::nn
