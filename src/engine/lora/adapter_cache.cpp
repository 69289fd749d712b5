#include "engine/lora/adapter_cache.h"

#include <algorithm>

namespace limner::engine::lora {

AdapterCache::Adapter AdapterCache::get(const std::string& key,
                                        const std::function<Adapter()>& load) {
  std::promise<Adapter> promise;
  {
    std::unique_lock lock(mutex_);
    if (const auto found = entries_.find(key); found != entries_.end()) {
      ++stats_.hits;
      order_.splice(order_.begin(), order_, found->second.place);
      const std::shared_future<Adapter> adapter = found->second.adapter;
      lock.unlock();
      return adapter.get();
    }
    ++stats_.misses;
    order_.push_front(key);
    entries_[key] = {promise.get_future().share(), 0, order_.begin()};
  }
  try {
    Adapter adapter = load();
    promise.set_value(adapter);
    keep(key, adapter);
    return adapter;
  } catch (...) {
    promise.set_exception(std::current_exception());
    forget(key);
    throw;
  }
}

void AdapterCache::keep(const std::string& key, const Adapter& adapter) {
  const std::scoped_lock lock(mutex_);
  Entry& entry = entries_.at(key);  // nobody throws out what is being loaded
  entry.bytes = std::max<std::uint64_t>(1, adapter->memory_bytes);
  stats_.bytes += entry.bytes;
  auto place = order_.end();
  while (stats_.bytes > capacity_ && place != order_.begin()) {
    --place;
    const auto oldest = entries_.find(*place);
    if (oldest->second.bytes == 0) continue;
    stats_.bytes -= oldest->second.bytes;
    ++stats_.evictions;
    entries_.erase(oldest);
    place = order_.erase(place);
  }
}

void AdapterCache::forget(const std::string& key) {
  const std::scoped_lock lock(mutex_);
  const auto found = entries_.find(key);
  order_.erase(found->second.place);
  entries_.erase(found);
}

AdapterCacheStats AdapterCache::stats() const {
  const std::scoped_lock lock(mutex_);
  AdapterCacheStats stats = stats_;
  stats.adapters = entries_.size();
  return stats;
}

}  // namespace limner::engine::lora
