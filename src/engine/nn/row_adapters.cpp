#include "engine/nn/row_adapters.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace limner::engine::nn {
namespace {

struct Rows {
  int64_t first = 0, last = 0;
};

// From the first to the last row whose weight is not 0.
Rows rows_of(std::span<const float> weights) {
  const auto counts = [](float weight) { return weight != 0.0f; };
  const auto first = std::ranges::find_if(weights, counts);
  if (first == weights.end()) return {};
  auto last = weights.end();
  while (!counts(*(last - 1))) --last;
  return {first - weights.begin(), last - weights.begin()};
}

std::vector<at::Tensor> tensors_of(const LowRank& kind) {
  return {kind.down, kind.up};
}
std::vector<at::Tensor> tensors_of(const Delta& kind) {
  return {kind.first.left, kind.first.right, kind.second.left, kind.second.right};
}
std::vector<at::Tensor> tensors_of(const OutputMix& kind) {
  return {kind.blocks};
}
std::vector<at::Tensor> tensors_of(const InputScale& kind) {
  return {kind.factors};
}
std::vector<at::Tensor> tensors_of(const InputMix& kind) {
  return {kind.blocks, kind.factors};
}
std::vector<at::Tensor> tensors_of(const BiasShift& kind) {
  return {kind.bias};
}
std::vector<at::Tensor> tensors_of(const WeightShift& kind) {
  return {kind.weight};
}

at::Device device_of(const Branch& branch) {
  return std::visit([](const auto& kind) { return tensors_of(kind).front().device(); }, branch);
}

at::Tensor scale_of(std::span<const float> weights, const Rows& rows, at::Device device) {
  const std::vector<float> values(weights.begin() + rows.first, weights.begin() + rows.last);
  return at::tensor(values, at::kFloat).to(device);
}

// Adapters of the same rows share products. Those of different rows do not: their slots would have
// to be copied side by side at every change of the batch, and each row would compute all of them.
bool joins(const RankSlots& slots, const LowRank& branch, const Rows& rows) {
  return slots.first_row == rows.first && slots.last_row == rows.last &&
         slots.down.scalar_type() == branch.down.scalar_type() &&
         slots.up.scalar_type() == branch.up.scalar_type() &&
         slots.down.sizes().slice(1) == branch.down.sizes().slice(1);
}

void join(RankSlots& slots, const LowRank& branch, const at::Tensor& scale) {
  slots.down = at::cat({slots.down, branch.down});
  slots.up = at::cat({slots.up, branch.up}, 1);
  slots.scale = at::cat({slots.scale, scale}, 1);
}

}  // namespace

std::vector<at::Tensor> tensors_of(const Branch& branch) {
  std::vector<at::Tensor> tensors =
      std::visit([](const auto& kind) { return tensors_of(kind); }, branch);
  std::erase_if(tensors, [](const at::Tensor& tensor) { return !tensor.defined(); });
  return tensors;
}

at::Tensor Factor::dense() const {
  return right.defined() ? left.matmul(right) : left;
}

at::Tensor Delta::dense() const {
  at::Tensor result = first.dense();
  if (join == Join::kHadamard) result = result * second.dense();
  if (join == Join::kKronecker) {
    const at::Tensor block = second.dense();
    while (result.dim() < block.dim()) result = result.unsqueeze(-1);
    result = at::kron(result, block);
  }
  return result.reshape(shape);
}

void RowAdapters::add(const std::string& layer, const Branch& branch,
                      std::span<const float> weights) {
  LIMNER_CHECK(std::cmp_equal(weights.size(), rows_), "one weight per row");
  const Rows rows = rows_of(weights);
  if (rows.first == rows.last) return;
  LayerAdapters& adapters = layers_[layer];
  const auto* low_rank = std::get_if<LowRank>(&branch);
  if (low_rank == nullptr) {
    adapters.others.push_back(
        {rows.first, rows.last, scale_of(weights, rows, device_of(branch)), branch});
    return;
  }
  const at::Tensor scale = scale_of(weights, rows, low_rank->down.device())
                               .mul_(low_rank->scale)
                               .unsqueeze(1)
                               .expand({-1, low_rank->down.size(0)});
  for (RankSlots& slots : adapters.slots) {
    if (joins(slots, *low_rank, rows)) return join(slots, *low_rank, scale);
  }
  adapters.slots.push_back({rows.first, rows.last, low_rank->down, low_rank->up, scale});
}

const LayerAdapters* RowAdapters::find(const std::string& layer) const {
  const auto found = layers_.find(layer);
  return found == layers_.end() ? nullptr : &found->second;
}

const RowAdapters& no_adapters() {
  static const RowAdapters none;
  return none;
}

}  // namespace limner::engine::nn
