// Adapters kept by bytes, the least recently used out first: attached, or as their files.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "engine/lora/attach.h"

namespace limner::engine::lora {

struct AdapterCacheStats {
  std::uint64_t hits = 0;  // those that waited for another's load too
  std::uint64_t misses = 0;
  std::uint64_t evictions = 0;
  std::uint64_t bytes = 0;
  std::size_t adapters = 0;
};

std::uint64_t cached_bytes(const AttachedAdapter& adapter);
std::uint64_t cached_bytes(const AdapterFile& file);

// `Value` is AttachedAdapter or AdapterFile. Safe to call from many threads; no lock is held while
// loading. Pictures that use an adapter keep it alive, so that throwing it out never disturbs one.
template <typename Value>
class ByteCache {
 public:
  using Pointer = std::shared_ptr<const Value>;
  explicit ByteCache(std::uint64_t capacity_bytes) : capacity_(capacity_bytes) {}

  // The adapter of that key, from `load` when it is not there. Whoever asks while one thread loads
  // waits for its result, or its exception; a failed load is not remembered. An adapter larger than
  // the whole cache is returned and not kept.
  Pointer get(const std::string& key, const std::function<Pointer()>& load);
  AdapterCacheStats stats() const;

 private:
  struct Entry {
    std::shared_future<Pointer> value;
    std::uint64_t bytes = 0;  // 0 while it is being loaded
    std::list<std::string>::iterator place;
  };
  void keep(const std::string& key, const Pointer& value);
  void forget(const std::string& key);

  const std::uint64_t capacity_;
  mutable std::mutex mutex_;  // guards all below
  std::unordered_map<std::string, Entry> entries_;
  std::list<std::string> order_;  // least recently used last
  AdapterCacheStats stats_;
};

using AdapterCache = ByteCache<AttachedAdapter>;
using AdapterFileCache = ByteCache<AdapterFile>;

}  // namespace limner::engine::lora
