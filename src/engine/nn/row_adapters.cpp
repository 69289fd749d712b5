#include "engine/nn/row_adapters.h"

namespace limner::engine::nn {

void RowAdapters::add(std::string layer, LowRankBranch branch) {
  branches_[std::move(layer)].push_back(std::move(branch));
}

const std::vector<LowRankBranch>* RowAdapters::find(const std::string& layer) const {
  const auto found = branches_.find(layer);
  return found == branches_.end() ? nullptr : &found->second;
}

const RowAdapters& no_adapters() {
  static const RowAdapters none;
  return none;
}

}  // namespace limner::engine::nn
