#include "engine/lora/adapter_cache.h"

#include <algorithm>

namespace limner::engine::lora {

std::uint64_t cached_bytes(const AttachedAdapter& adapter) {
  return adapter.memory_bytes;
}

std::uint64_t cached_bytes(const AdapterFile& file) {
  return file.bytes();
}

template <typename Value>
auto ByteCache<Value>::get(const std::string& key, const std::function<Pointer()>& load)
    -> Pointer {
  std::promise<Pointer> promise;
  {
    std::unique_lock lock(mutex_);
    if (const auto found = entries_.find(key); found != entries_.end()) {
      ++stats_.hits;
      order_.splice(order_.begin(), order_, found->second.place);
      const std::shared_future<Pointer> value = found->second.value;
      lock.unlock();
      return value.get();
    }
    ++stats_.misses;
    order_.push_front(key);
    entries_[key] = {promise.get_future().share(), 0, order_.begin()};
  }
  try {
    Pointer value = load();
    promise.set_value(value);
    keep(key, value);
    return value;
  } catch (...) {
    promise.set_exception(std::current_exception());
    forget(key);
    throw;
  }
}

template <typename Value>
void ByteCache<Value>::keep(const std::string& key, const Pointer& value) {
  const std::scoped_lock lock(mutex_);
  Entry& entry = entries_.at(key);  // nobody throws out what is being loaded
  entry.bytes = std::max<std::uint64_t>(1, cached_bytes(*value));
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

template <typename Value>
void ByteCache<Value>::forget(const std::string& key) {
  const std::scoped_lock lock(mutex_);
  const auto found = entries_.find(key);
  order_.erase(found->second.place);
  entries_.erase(found);
}

template <typename Value>
AdapterCacheStats ByteCache<Value>::stats() const {
  const std::scoped_lock lock(mutex_);
  AdapterCacheStats stats = stats_;
  stats.adapters = entries_.size();
  return stats;
}

template class ByteCache<AttachedAdapter>;
template class ByteCache<AdapterFile>;

}  // namespace limner::engine::lora
