#include "engine/nn/layers.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/suggest.h"
#include "engine/kernels/conv2d.h"
#include "engine/kernels/linear.h"
#include "engine/kernels/normalization.h"

namespace limner::engine::nn {
namespace {

// One layer, or one part of a fused one, as its adapters see it.
struct Site {
  at::Tensor weight;
  at::Tensor bias;  // may be undefined
  std::optional<kernels::Conv2dOptions> convolution;

  // As the layer itself, without bias.
  at::Tensor product(const at::Tensor& x, const at::Tensor& matrix) const {
    return convolution ? kernels::conv2d(x, matrix, {}, *convolution)
                       : kernels::linear(x, matrix, {});
  }
  at::Tensor pointwise(const at::Tensor& x, const at::Tensor& matrix) const {
    return convolution ? kernels::conv2d(x, matrix, {}, {}) : kernels::linear(x, matrix, {});
  }
  // [C] or [rows, C], shaped to go with t [rows, C, H, W] or [rows, ..., C].
  at::Tensor over_channels(const at::Tensor& values, const at::Tensor& t) const {
    std::vector<int64_t> shape(static_cast<std::size_t>(t.dim()), 1);
    shape[convolution ? 1 : shape.size() - 1] = values.size(-1);
    if (values.dim() == 2) shape[0] = values.size(0);
    return values.to(t.scalar_type()).view(shape);
  }
};

at::Tensor branch_output(const LowRank& branch, const Site& site, const at::Tensor& x,
                         const at::Tensor&) {
  return site.pointwise(site.product(x, branch.down), branch.up).mul_(branch.scale);
}

at::Tensor branch_output(const Delta& branch, const Site& site, const at::Tensor& x,
                         const at::Tensor&) {
  return site.product(x, branch.dense().to(x.scalar_type())).mul_(branch.scale);
}

at::Tensor branch_output(const InputScale& branch, const Site& site, const at::Tensor& x,
                         const at::Tensor&) {
  return site.product(x * site.over_channels(branch.factors, x), site.weight);
}

// [n, m, m] times the channels of t, taken in n blocks.
at::Tensor mixed_channels(const at::Tensor& blocks, const Site& site, const at::Tensor& t) {
  const at::Tensor last = site.convolution ? t.movedim(1, -1) : t;
  std::vector<int64_t> shape = last.sizes().vec();
  shape.back() = blocks.size(0);
  shape.push_back(blocks.size(1));
  const at::Tensor mixed =
      at::einsum("...kn,kmn->...km", {last.reshape(shape), blocks.to(t.scalar_type())})
          .reshape(last.sizes());
  return site.convolution ? mixed.movedim(-1, 1) : mixed;
}

at::Tensor branch_output(const OutputMix& branch, const Site& site, const at::Tensor&,
                         const at::Tensor& plain) {
  if (branch.blocks.size(1) == 1) return plain * site.over_channels(branch.blocks.view(-1), plain);
  return mixed_channels(branch.blocks, site, plain);
}

at::Tensor branch_output(const InputMix& branch, const Site& site, const at::Tensor& x,
                         const at::Tensor&) {
  const at::Tensor y = site.product(mixed_channels(branch.blocks, site, x), site.weight);
  return branch.factors.defined() ? y * site.over_channels(branch.factors, y) : y;
}

at::Tensor branch_output(const WeightShift&, const Site&, const at::Tensor&, const at::Tensor&) {
  LIMNER_CHECK(false, "only norms take a WeightShift");
  return {};
}

at::Tensor branch_output(const BiasShift& branch, const Site& site, const at::Tensor&,
                         const at::Tensor& plain) {
  return site.over_channels(branch.bias, plain).expand(plain.sizes()).clone();
}

// Adds to y, which is a norm's output, what its rows' adapters say; `normed` is y without the
// norm's own weight and bias.
void add_to_norm(const RowAdapters& adapters, const LayerAdapters& layer, int64_t channel_axis,
                 const at::Tensor& normed, const at::Tensor& y) {
  LIMNER_CHECK(adapters.rows() == 1 || adapters.rows() == y.size(0),
               "adapters were built for another number of rows");
  for (const RowBranch& other : layer.others) {
    const auto rows = [&](const at::Tensor& t) {
      return adapters.rows() == 1 ? t
                                  : t.narrow(0, other.first_row, other.last_row - other.first_row);
    };
    const auto shaped = [&](const at::Tensor& values, int64_t axis) {
      std::vector<int64_t> shape(static_cast<std::size_t>(y.dim()), 1);
      shape[static_cast<std::size_t>(axis)] = values.size(0);
      return values.to(y.scalar_type()).view(shape);
    };
    const at::Tensor scale = shaped(other.scale, 0);
    if (const auto* weight = std::get_if<WeightShift>(&other.branch)) {
      rows(y).add_(rows(normed) * shaped(weight->weight, channel_axis) * scale);
    } else {
      const auto* bias = std::get_if<BiasShift>(&other.branch);
      LIMNER_CHECK(bias != nullptr, "a norm takes WeightShift and BiasShift");
      rows(y).add_(shaped(bias->bias, channel_axis) * scale);
    }
  }
}

// Adds to y, which is the plain layer's output for x, what its rows' adapters say.
void add_branches(const RowAdapters& adapters, const LayerAdapters& layer, const Site& site,
                  const at::Tensor& x, const at::Tensor& y) {
  const auto rows = [&](const at::Tensor& t, const auto& group) {
    return adapters.rows() == 1 ? t
                                : t.narrow(0, group.first_row, group.last_row - group.first_row);
  };
  LIMNER_CHECK(adapters.rows() == 1 || adapters.rows() == x.size(0),
               "adapters were built for another number of rows");
  at::Tensor plain;  // W x
  if (!layer.others.empty()) {
    plain = site.bias.defined() ? y - site.over_channels(site.bias, y) : y.clone();
  }
  for (const RankSlots& slots : layer.slots) {
    const at::Tensor inner = site.product(rows(x, slots), slots.down);  // [rows, ..., R]
    inner.mul_(site.over_channels(slots.scale, inner));
    rows(y, slots).add_(site.pointwise(inner, slots.up));
  }
  for (const RowBranch& other : layer.others) {
    const at::Tensor added = std::visit(
        [&](const auto& branch) {
          return branch_output(branch, site, rows(x, other), rows(plain, other));
        },
        other.branch);
    std::vector<int64_t> shape(static_cast<std::size_t>(y.dim()), 1);
    shape[0] = other.scale.size(0);
    rows(y, other).add_(added.mul_(other.scale.to(y.scalar_type()).view(shape)));
  }
}

}  // namespace

Linear::Linear(const TensorSource& source, const Size& size) : Linear(std::vector{source}, size) {}

Linear::Linear(const std::vector<TensorSource>& parts, const Size& size)
    : part_width_(size.out), weight_(parts, {size.out, size.in}) {
  std::vector<at::Tensor> biases;
  for (const TensorSource& part : parts) {
    names_.push_back(part.prefix());
    if (size.bias) biases.push_back(part.take_small("bias", {size.out}));
  }
  if (size.bias) bias_ = biases.size() == 1 ? biases.front() : at::cat(biases);
}

Linear Linear::fused(const std::vector<TensorSource>& parts, const Size& size) {
  return {parts, size};
}

at::Tensor Linear::operator()(const at::Tensor& x, const RowAdapters& adapters) const {
  const at::Tensor weight = weight_.get();
  at::Tensor y = kernels::linear(x, weight, bias_);
  if (adapters.empty()) return y;
  for (std::size_t part = 0; part < names_.size(); ++part) {
    const LayerAdapters* layer = adapters.find(names_[part]);
    if (layer == nullptr) continue;
    const int64_t begin = static_cast<int64_t>(part) * part_width_;
    const Site site{.weight = weight.narrow(0, begin, part_width_),
                    .bias = bias_.defined() ? bias_.narrow(0, begin, part_width_) : bias_,
                    .convolution = std::nullopt};
    add_branches(adapters, *layer, site, x, y.narrow(-1, begin, part_width_));
  }
  return y;
}

Conv2d::Conv2d(const TensorSource& source, const Size& size)
    : name_(source.prefix()),
      options_{.stride = size.stride, .padding = size.padding},
      weight_({source}, {size.out, size.in, size.kernel, size.kernel}),
      bias_(source.take_small("bias", {size.out})) {}

at::Tensor Conv2d::operator()(const at::Tensor& x, const RowAdapters& adapters) const {
  const at::Tensor weight = weight_.get();
  at::Tensor y = kernels::conv2d(x, weight, bias_, options_);
  if (adapters.empty()) return y;
  if (const LayerAdapters* layer = adapters.find(name_)) {
    add_branches(adapters, *layer, {.weight = weight, .bias = bias_, .convolution = options_}, x,
                 y);
  }
  return y;
}

GroupNorm::GroupNorm(const TensorSource& source, const Size& size)
    : name_(source.prefix()),
      size_(size),
      weight_(source.take_small("weight", {size.channels})),
      bias_(source.take_small("bias", {size.channels})) {
  if (size.groups < 1 || size.channels % size.groups != 0) {
    throw Failure(ErrorCode::kInvalidModel, source.prefix() + ": " + std::to_string(size.channels) +
                                                " channels cannot be normalised in " +
                                                std::to_string(size.groups) + " groups");
  }
}

at::Tensor GroupNorm::operator()(const at::Tensor& x, const RowAdapters& adapters) const {
  at::Tensor y = kernels::group_norm(x, weight_, bias_, {.groups = size_.groups, .eps = size_.eps});
  if (const LayerAdapters* layer = adapters.find(name_)) {
    const at::Tensor normed = kernels::group_norm(x, at::ones_like(weight_), at::zeros_like(bias_),
                                                  {.groups = size_.groups, .eps = size_.eps});
    add_to_norm(adapters, *layer, 1, normed, y);
  }
  return y;
}

at::Tensor GroupNorm::silu(const at::Tensor& x, const RowAdapters& adapters) const {
  if (adapters.find(name_) != nullptr) return at::silu((*this)(x, adapters));
  return kernels::group_norm(x, weight_, bias_,
                             {.groups = size_.groups, .eps = size_.eps, .silu = true});
}

LayerNorm::LayerNorm(const TensorSource& source, int64_t width, double eps)
    : name_(source.prefix()),
      eps_(eps),
      weight_(source.take_small("weight", {width})),
      bias_(source.take_small("bias", {width})) {}

at::Tensor LayerNorm::operator()(const at::Tensor& x, const RowAdapters& adapters) const {
  at::Tensor y = at::layer_norm(x, {weight_.size(0)}, weight_, bias_, eps_);
  if (const LayerAdapters* layer = adapters.find(name_)) {
    const at::Tensor normed = at::layer_norm(x, {weight_.size(0)}, {}, {}, eps_);
    add_to_norm(adapters, *layer, y.dim() - 1, normed, y);
  }
  return y;
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
