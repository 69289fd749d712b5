#include "engine/lora/adapter_tiers.h"

namespace limner::engine::lora {

AdapterTiers::AdapterTiers(const Budget& budget) : attached_(budget.attached) {
  if (budget.files) files_.emplace(*budget.files);
}

AdapterCache::Pointer AdapterTiers::get(const std::string& key, const ReadFile& read,
                                        const Attach& attach) {
  return attached_.get(key, [&] { return attach(files_ ? *files_->get(key, read) : *read()); });
}

}  // namespace limner::engine::lora
