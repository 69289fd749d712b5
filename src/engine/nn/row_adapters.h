// RowAdapters: which rows of a batch add what to which layer. Handed down every forward beside the
// tensors; layers ask it and never own an adapter, so base weights are never written.
//
// A branch is what one adapter does to one layer with weight W [out, in] or [out, in, kh, kw]. All
// are linear in the weight an adapter is given, so that a row's output is W x + b + sum w_i
// branch_i(x).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

namespace limner::engine::nn {

// scale * up(down(x)). Linear: down [r, in], up [out, r]. Convolution: down [r, in, kh, kw] with
// the layer's own stride and padding, up [out, r, 1, 1].
struct LowRank {
  at::Tensor down;
  at::Tensor up;
  double scale = 1.0;
};

// A matrix, kept as a product of two when `right` is defined.
struct Factor {
  at::Tensor left;
  at::Tensor right;
  at::Tensor dense() const;
};

// scale * D x, where D has W's shape: `first` alone, `first` times `second` element by element
// (LoHa), or their Kronecker product (LoKr). Small factors stay small: D lives for one product.
struct Delta {
  enum class Join { kFirst, kHadamard, kKronecker };
  Join join = Join::kFirst;
  Factor first{}, second{};
  std::vector<int64_t> shape{};  // of W
  double scale = 1.0;
  at::Tensor dense() const;  // without `scale`
};

// M W x, with M block-diagonal: blocks [n, m, m], n * m = out (m = 1: one factor per channel).
struct OutputMix {
  at::Tensor blocks;
};

// W (f * x), f [in].
struct InputScale {
  at::Tensor factors;
};

// f * (W M x), with M block-diagonal: blocks [n, m, m], n * m = in; f [out], or undefined for ones.
// Linear layers and 1x1 convolutions only.
struct InputMix {
  at::Tensor blocks;
  at::Tensor factors;
};

// + bias [out].
struct BiasShift {
  at::Tensor bias;
};

// Norms only: + weight [channels] times what is normalised. Besides it they take BiasShift.
struct WeightShift {
  at::Tensor weight;
};

using Branch =
    std::variant<LowRank, Delta, OutputMix, InputScale, InputMix, BiasShift, WeightShift>;
std::vector<at::Tensor> tensors_of(const Branch& branch);  // all that are defined

// Low-rank branches of one or several adapters side by side, so that their rows take one product:
// y += up(scale * down(x)) for the rows first_row..last_row.
struct RankSlots {
  int64_t first_row = 0;
  int64_t last_row = 0;  // exclusive
  at::Tensor down;       // [R, ...]
  at::Tensor up;         // [out, R, ...]
  at::Tensor scale;      // [rows, R] float32; 0 where a row does not take a slot
};

// A branch of another kind, for the rows first_row..last_row.
struct RowBranch {
  int64_t first_row = 0;
  int64_t last_row = 0;
  at::Tensor scale;  // [rows] float32
  Branch branch;
};

struct LayerAdapters {
  std::vector<RankSlots> slots;
  std::vector<RowBranch> others;
};

// Built once per batch, read-only during forward. Keys are full layer names
// ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q").
class RowAdapters {
 public:
  // With one row, that row's adapters serve every row of whatever goes through the network: the
  // chunks of a long prompt.
  explicit RowAdapters(int64_t rows = 1) : rows_(rows) {}

  // `weights` [rows]: how much of the branch each row takes; 0: nothing of it.
  void add(const std::string& layer, const Branch& branch, std::span<const float> weights);
  bool empty() const { return layers_.empty(); }
  int64_t rows() const { return rows_; }
  const LayerAdapters* find(const std::string& layer) const;

 private:
  int64_t rows_;
  std::unordered_map<std::string, LayerAdapters> layers_;
};

// The one without adapters.
const RowAdapters& no_adapters();

}  // namespace limner::engine::nn
