// Adapters on the device, and behind them their files in the host's memory: one that had to leave a
// small device comes back without the disk.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/lora/adapter_cache.h"

namespace limner::engine::lora {

// Safe to call from many threads.
class AdapterTiers {
 public:
  struct Budget {
    std::uint64_t attached = 0;  // bytes
    // Absent where the device is the host: attached adapters lie in their files' memory there, and
    // keeping those as well would gain nothing.
    std::optional<std::uint64_t> files;
  };
  explicit AdapterTiers(const Budget& budget);

  using ReadFile = std::function<std::shared_ptr<const AdapterFile>()>;
  using Attach = std::function<std::shared_ptr<const AttachedAdapter>(const AdapterFile&)>;
  // As ByteCache::get, with `read` called where neither tier has the key. What the two throw is
  // thrown.
  AdapterCache::Pointer get(const std::string& key, const ReadFile& read, const Attach& attach);

  AdapterCacheStats attached() const { return attached_.stats(); }
  AdapterCacheStats files() const { return files_ ? files_->stats() : AdapterCacheStats{}; }

 private:
  AdapterCache attached_;
  std::optional<AdapterFileCache> files_;
};

}  // namespace limner::engine::lora
