#include "engine/pipelines/batch_adapters.h"

#include <algorithm>

namespace limner::engine::pipelines {

// A step has one forward per length of prompt; more than a few are rare.
constexpr std::size_t kKept = 4;

const nn::RowAdapters& BatchAdapters::unet(const std::vector<const lora::AdapterList*>& rows) {
  if (std::ranges::all_of(rows, [](const lora::AdapterList* list) { return list->empty(); })) {
    return nn::no_adapters();
  }
  const auto same = [&](const Built& built) {
    return std::ranges::equal(
        rows, built.rows,
        [](const lora::AdapterList* list, const lora::AdapterList& kept) { return *list == kept; });
  };
  if (const auto found = std::ranges::find_if(kept_, same); found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
    return kept_.front().adapters;
  }
  Built built{{}, lora::row_adapters("unet", rows)};
  for (const lora::AdapterList* list : rows) built.rows.push_back(*list);
  kept_.push_front(std::move(built));
  if (kept_.size() > kKept) kept_.pop_back();
  return kept_.front().adapters;
}

}  // namespace limner::engine::pipelines
