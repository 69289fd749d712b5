// RowAdapters: which rows of a batch add which low-rank branch to which layer. Handed down every
// forward beside the tensors; layers ask it and never own an adapter, so base weights are never
// written.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace limner::engine::nn {

// y[first..last) += scale * up(down(x[first..last))). For a linear layer down is [r, in] and up
// [out, r]; for a convolution down is [r, in, kh, kw] (the layer's own stride and padding) and up
// [out, r, 1, 1].
struct LowRankBranch {
  int64_t first_row = 0;
  int64_t last_row = 0;  // exclusive
  at::Tensor down;
  at::Tensor up;
  double scale = 1.0;
};

// Built once per batch, read-only during forward. Keys are full layer names
// ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q").
class RowAdapters {
 public:
  void add(std::string layer, LowRankBranch branch);
  bool empty() const { return branches_.empty(); }
  const std::vector<LowRankBranch>* find(const std::string& layer) const;

 private:
  std::unordered_map<std::string, std::vector<LowRankBranch>> branches_;
};

// The one without adapters.
const RowAdapters& no_adapters();

}  // namespace limner::engine::nn
