// ModelCache: the models in memory, shared by the workers of a process.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "contract/catalog.h"
#include "engine/engine.h"

namespace limner::worker {

struct ModelCacheOptions {
  // Bytes for weights and for what is drawn. Absent: what was free on the device at the start.
  std::optional<std::uint64_t> memory_budget{};
  std::vector<std::string> pinned{};  // names of models that stay once they are loaded
  // For every engine; its own memory budget is not looked at.
  engine::EngineOptions engine{};
};

// A model of the catalog, and how it is loaded.
struct ModelPlace {
  std::string name{};
  engine::Composition composition{};
  std::string version{};  // of its files: another one is another model
  std::uint64_t weight_bytes = 0;
  std::string hash{};     // SHA-256 of its weights; "" while it is not computed
  std::string problem{};  // why it cannot be used; "": it can
};

// What a cache tells while somebody waits for it; called without locks, on the caller's thread.
struct CacheObserver {
  std::function<void(const std::string& model)> loading{};
  std::function<void(const std::string& model)> unloading{};
};

struct ModelCacheStats {
  std::uint64_t hits = 0, loads = 0, evictions = 0;
  std::uint64_t weight_bytes = 0;   // of loaded models and their adapters
  std::uint64_t drawing_bytes = 0;  // reserved for what is drawn
  std::uint64_t adapter_hits = 0, adapter_misses = 0, adapter_bytes = 0;
};

// An engine of a loaded model, for one thread; goes back when it is destroyed, also after the cache
// itself.
class EngineLease {
 public:
  EngineLease(EngineLease&&) noexcept;
  EngineLease& operator=(EngineLease&&) noexcept;
  ~EngineLease();

  engine::Engine& engine() { return *engine_; }
  const engine::Engine& engine() const { return *engine_; }
  // How long loading took; nothing when the model was there.
  std::optional<double> load_seconds() const { return load_seconds_; }
  // Bytes that drawing may take once every model that nobody uses has gone.
  std::uint64_t room() const;
  // Sets so many bytes aside for drawing, in place of what was set aside before; models that nobody
  // uses go where that is needed, and other drawings are waited for. kOutOfMemory when it cannot
  // be; retryable when the memory is held by other workers' models. kCancelled when stopped.
  Result<void> reserve(std::uint64_t bytes, const CacheObserver& observer, std::stop_token stop);

 private:
  friend class ModelCache;
  struct Held;
  EngineLease(std::unique_ptr<engine::Engine> engine, std::unique_ptr<Held> held,
              std::optional<double> load_seconds);
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<Held> held_;
  std::optional<double> load_seconds_;
};

// A handle: copies are the same cache. Any thread may call. One copy of the weights serves all
// workers; each has an engine of its own over them.
class ModelCache {
 public:
  // Fails where the budget is to be what is free and the device is not there.
  static Result<ModelCache> open(ModelCacheOptions options, const std::string& device);

  // The model's engine: one that is idle, another one over the same weights, or after loading; two
  // that want one model load it once. Models that were used least recently go out to make room,
  // those in use are waited for, pinned ones stay. Errors: as Engine::load; kOutOfMemory naming
  // models of `catalog` that would fit; kCancelled when stopped.
  Result<EngineLease> acquire(const ModelPlace& place, const contract::Catalog& catalog,
                              const CacheObserver& observer, std::stop_token stop) const;
  // Its next use loads it anew; who draws with it goes on, or, where it hangs, is not waited for.
  void discard(const std::string& model) const;
  // Takes out what nobody uses, pinned models too.
  void clear() const;

  std::vector<std::string> loaded() const;  // names, most recently used first
  ModelCacheStats stats() const;
  std::string device() const;  // "cpu", "cuda:0"; "" before the first model is loaded

 private:
  friend class EngineLease;
  struct Entry;
  struct State;
  class Acquisition;
  explicit ModelCache(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace limner::worker
