#include "worker/model_cache.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <utility>

#include "base/human_bytes.h"

namespace limner::worker {
namespace {

Error stopped() {
  return Error{ErrorCode::kCancelled, "[models] stopped while waiting for memory"};
}

}  // namespace

struct ModelCache::Entry {
  enum class Phase : std::uint8_t { kLoading, kReady };
  std::string name{}, key{};
  std::uint64_t bytes = 0;
  std::uint64_t reserved = 0;  // for what is drawn with it
  bool pinned = false;
  // Found by nobody any more, and counted no more; goes when nobody uses it.
  bool discarded = false;
  Phase phase = Phase::kLoading;
  std::size_t in_use = 0;
  std::uint64_t used = 0;  // counts up with every use
  // The one that was loaded. Where weights can be shared it only makes others; else it is lent.
  std::unique_ptr<engine::Engine> root{};
  bool shareable = true;
  std::vector<std::unique_ptr<engine::Engine>> idle{};

  // What its adapters take, too; those of an engine that is lent are its own to count.
  std::uint64_t taken() const { return bytes + (root ? root->adapter_cache().bytes : 0); }
  bool can_go() const { return phase == Phase::kReady && in_use == 0; }
  bool may_be_evicted() const { return can_go() && !pinned && !discarded; }
};

struct ModelCache::State {
  ModelCacheOptions options;
  std::uint64_t budget = 0;
  mutable std::mutex mutex;
  std::condition_variable_any changed;
  // By mutex, like all below.
  std::list<std::shared_ptr<Entry>> entries;
  std::string device;
  std::uint64_t uses = 0;
  ModelCacheStats totals;  // hits, loads, evictions; adapters of models that are gone

  template <typename Bytes>
  std::uint64_t sum(Bytes bytes) const {
    std::uint64_t total = 0;
    for (const auto& entry : entries) {
      if (!entry->discarded) total += bytes(*entry);
    }
    return total;
  }
  std::uint64_t weights() const {
    return sum([](const Entry& entry) { return entry.taken(); });
  }
  std::uint64_t drawing() const {
    return sum([](const Entry& entry) { return entry.reserved; });
  }
  std::uint64_t taken() const { return weights() + drawing(); }
  std::uint64_t pinned() const {
    return sum([](const Entry& entry) { return entry.pinned ? entry.taken() : 0; });
  }
  // Weights that no eviction sets free.
  std::uint64_t fixed() const {
    return sum([](const Entry& entry) { return entry.may_be_evicted() ? 0 : entry.taken(); });
  }
  std::uint64_t left() const { return budget - std::min(budget, taken()); }

  std::shared_ptr<Entry> find(const std::string& key) const {
    for (const auto& entry : entries) {
      if (entry->key == key && !entry->discarded) return entry;
    }
    return nullptr;
  }

  void remember_adapters(const Entry& entry) {
    if (!entry.root) return;
    const engine::AdapterCacheStats adapters = entry.root->adapter_cache();
    totals.adapter_hits += adapters.hits;
    totals.adapter_misses += adapters.misses;
  }

  // Out of the list; its memory goes with the last who holds it, who had better not hold the mutex.
  void take(const std::shared_ptr<Entry>& entry) {
    remember_adapters(*entry);
    entries.remove(entry);
    changed.notify_all();
  }

  // The one used least recently that may go; nullptr: there is none.
  std::shared_ptr<Entry> least_recent() const {
    std::shared_ptr<Entry> oldest;
    for (const auto& entry : entries) {
      if (!entry->may_be_evicted()) continue;
      if (!oldest || entry->used < oldest->used) oldest = entry;
    }
    return oldest;
  }

  // Evicts the least recently used model; false when none may go. Unlocks meanwhile.
  bool evict_one(std::unique_lock<std::mutex>& lock, const CacheObserver& observer) {
    std::shared_ptr<Entry> gone = least_recent();
    if (!gone) return false;
    take(gone);
    ++totals.evictions;
    lock.unlock();
    if (observer.unloading) observer.unloading(gone->name);
    gone.reset();
    lock.lock();
    return true;
  }

  void discard(const std::shared_ptr<Entry>& entry) {
    entry->discarded = true;
    if (entry->can_go()) take(entry);
    changed.notify_all();
  }
};

namespace {

// Names of models that would fit into `room`, for a sentence.
std::string fitting(const contract::Catalog& catalog, std::uint64_t room) {
  std::vector<std::string> names;
  for (const contract::ModelCard& card : catalog.models) {
    if (card.problem.empty() && card.bytes <= room && names.size() < 5)
      names.push_back(fmt::format("{} ({})", card.name, human_bytes(card.bytes)));
  }
  if (names.empty()) return "no model of this installation would fit";
  return fmt::format("these would fit: {}", fmt::join(names, ", "));
}

}  // namespace

struct EngineLease::Held {
  std::shared_ptr<ModelCache::State> state;
  std::shared_ptr<ModelCache::Entry> entry;
  std::uint64_t reserved = 0;

  void set_reserved(std::uint64_t bytes) {
    entry->reserved += bytes - reserved;
    reserved = bytes;
    state->changed.notify_all();
  }
};

EngineLease::EngineLease(std::unique_ptr<engine::Engine> engine, std::unique_ptr<Held> held,
                         std::optional<double> load_seconds)
    : engine_(std::move(engine)), held_(std::move(held)), load_seconds_(load_seconds) {}
EngineLease::EngineLease(EngineLease&&) noexcept = default;

EngineLease& EngineLease::operator=(EngineLease&& other) noexcept {
  std::swap(engine_, other.engine_);
  std::swap(held_, other.held_);
  std::swap(load_seconds_, other.load_seconds_);
  return *this;
}

EngineLease::~EngineLease() {
  if (!held_) return;
  // Both outlive the lock.
  const std::shared_ptr<ModelCache::State> state = held_->state;
  const std::shared_ptr<ModelCache::Entry> entry = held_->entry;
  const std::lock_guard lock(state->mutex);
  held_->set_reserved(0);
  --entry->in_use;
  entry->idle.push_back(std::move(engine_));
  if (entry->discarded && entry->can_go()) state->take(entry);
  state->changed.notify_all();
}

std::uint64_t EngineLease::room() const {
  const ModelCache::State& state = *held_->state;
  const std::lock_guard lock(state.mutex);
  const std::uint64_t others = state.drawing() - std::min(state.drawing(), held_->reserved);
  return state.budget - std::min(state.budget, state.fixed() + others);
}

Result<void> EngineLease::reserve(std::uint64_t bytes, const CacheObserver& observer,
                                  std::stop_token stop) {
  ModelCache::State& state = *held_->state;
  std::unique_lock lock(state.mutex);
  held_->set_reserved(0);
  while (state.taken() + bytes > state.budget) {
    if (stop.stop_requested()) return stopped();
    if (state.evict_one(lock, observer)) continue;
    if (state.drawing() == 0) {
      const std::uint64_t alone = state.pinned() + (held_->entry->pinned ? 0 : held_->entry->bytes);
      return Error{
          ErrorCode::kOutOfMemory,
          fmt::format("[models] drawing needs {} beside the models in use, and {} of the "
                      "budget of {} are left",
                      human_bytes(bytes), human_bytes(state.left()), human_bytes(state.budget)),
          alone + bytes <= state.budget};
    }
    state.changed.wait(lock, stop, [&] {
      return state.taken() + bytes <= state.budget || state.drawing() == 0 || state.least_recent();
    });
  }
  held_->set_reserved(bytes);
  return {};
}

Result<ModelCache> ModelCache::open(ModelCacheOptions options, const std::string& device) {
  auto state = std::make_shared<State>();
  if (options.memory_budget) {
    state->budget = *options.memory_budget;
  } else {
    const auto free = engine::free_memory(device);
    if (!free.ok()) return free.error();
    state->budget = *free;
  }
  // Weights and drawings are counted here, for all models together.
  options.engine.memory_budget.reset();
  state->options = std::move(options);
  return ModelCache(std::move(state));
}

// One call of acquire(). Holds the mutex wherever it does not say otherwise.
class ModelCache::Acquisition {
 public:
  Acquisition(const std::shared_ptr<State>& state, const ModelPlace& place,
              const contract::Catalog& catalog, const CacheObserver& observer, std::stop_token stop)
      : shared_(state),
        state_(*state),
        place_(place),
        catalog_(catalog),
        observer_(observer),
        stop_(std::move(stop)),
        key_(fmt::format("{}|{}", place.composition.key(), place.version)),
        lock_(state_.mutex) {}

  Result<EngineLease> run() {
    while (!stop_.stop_requested()) {
      const std::shared_ptr<Entry> entry = state_.find(key_);
      if (entry && entry->phase == Entry::Phase::kReady) {
        if (auto lease = lend(entry)) return std::move(*lease);
      }
      if (entry) {
        wait_for(entry);
        continue;
      }
      tell_loading();
      if (state_.find(key_)) continue;  // somebody else began meanwhile
      const auto room = make_room();
      if (!room.ok()) return room.error();
      if (!*room) continue;
      if (auto lease = load()) return std::move(*lease);
    }
    return stopped();
  }

 private:
  EngineLease lease_of(const std::shared_ptr<Entry>& entry, std::unique_ptr<engine::Engine> engine,
                       std::optional<double> seconds) {
    ++entry->in_use;
    entry->used = ++state_.uses;
    auto held = std::make_unique<EngineLease::Held>();
    held->state = shared_;
    held->entry = entry;
    return EngineLease(std::move(engine), std::move(held), seconds);
  }

  // An idle engine, or another one over the same weights; nothing where there can be but one.
  std::optional<EngineLease> lend(const std::shared_ptr<Entry>& entry) {
    std::unique_ptr<engine::Engine> engine;
    if (!entry->idle.empty()) {
      engine = std::move(entry->idle.back());
      entry->idle.pop_back();
    } else if (entry->shareable) {
      engine = std::make_unique<engine::Engine>(entry->root->share().value());
    } else {
      return std::nullopt;
    }
    ++state_.totals.hits;
    return lease_of(entry, std::move(engine), std::nullopt);
  }

  // Another worker loads it, or draws with the only engine there can be.
  void wait_for(const std::shared_ptr<Entry>& entry) {
    if (entry->phase == Entry::Phase::kLoading) tell_loading();
    state_.changed.wait(lock_, stop_, [&] {
      return state_.find(key_) != entry ||
             (entry->phase == Entry::Phase::kReady && (entry->shareable || !entry->idle.empty()));
    });
  }

  // Once for each wait; without the lock.
  void tell_loading() {
    if (std::exchange(told_, true) || !observer_.loading) return;
    lock_.unlock();
    observer_.loading(place_.name);
    lock_.lock();
  }

  // True when there is room now; false: look again.
  Result<bool> make_room() {
    if (place_.weight_bytes <= state_.left()) return true;
    if (evict_one()) return false;
    const std::uint64_t pinned = state_.pinned();
    if (pinned + place_.weight_bytes > state_.budget) {
      const std::uint64_t room = state_.budget - std::min(state_.budget, pinned);
      return Error{ErrorCode::kOutOfMemory,
                   fmt::format("[models] {} needs {}, and the memory budget of {} leaves {}{}; {}",
                               place_.name, human_bytes(place_.weight_bytes),
                               human_bytes(state_.budget), human_bytes(room),
                               pinned > 0 ? " beside pinned models" : "", fitting(catalog_, room))};
    }
    const std::uint64_t seen = state_.left();
    state_.changed.wait(lock_, stop_,
                        [&] { return state_.left() > seen || state_.least_recent() != nullptr; });
    return false;
  }

  bool evict_one() {
    const bool evicted = state_.evict_one(lock_, observer_);
    if (evicted) told_ = false;  // what follows is loading again
    return evicted;
  }

  // Nothing: look again, after what nobody uses went.
  std::optional<Result<EngineLease>> load() {
    const std::shared_ptr<Entry> entry = begin_load();
    lock_.unlock();
    const auto began = std::chrono::steady_clock::now();
    auto loaded = engine::Engine::load(place_.composition, state_.options.engine);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    lock_.lock();
    if (!loaded.ok()) {
      state_.take(entry);
      // The machine may have less than the budget says: once more without what nobody uses.
      if (loaded.error().code != ErrorCode::kOutOfMemory || !evict_one()) return loaded.error();
      while (evict_one()) {
      }
      return std::nullopt;
    }
    ++state_.totals.loads;
    entry->root = std::make_unique<engine::Engine>(std::move(*loaded));
    entry->phase = Entry::Phase::kReady;
    state_.device = entry->root->info().device;
    auto first = entry->root->share();
    entry->shareable = first.ok();
    auto engine =
        first.ok() ? std::make_unique<engine::Engine>(std::move(*first)) : std::move(entry->root);
    state_.changed.notify_all();
    return lease_of(entry, std::move(engine), took.count());
  }

  std::shared_ptr<Entry> begin_load() {
    for (const auto& old : state_.entries) {
      if (old->name == place_.name && !old->discarded) {
        state_.discard(old);  // other files under its name
        break;
      }
    }
    auto entry = std::make_shared<Entry>();
    entry->name = place_.name;
    entry->key = key_;
    entry->bytes = place_.weight_bytes;
    entry->pinned = std::ranges::count(state_.options.pinned, place_.name) > 0;
    state_.entries.push_back(entry);
    return entry;
  }

  const std::shared_ptr<State>& shared_;
  State& state_;
  const ModelPlace& place_;
  const contract::Catalog& catalog_;
  const CacheObserver& observer_;
  const std::stop_token stop_;
  const std::string key_;
  std::unique_lock<std::mutex> lock_;
  bool told_ = false;
};

Result<EngineLease> ModelCache::acquire(const ModelPlace& place, const contract::Catalog& catalog,
                                        const CacheObserver& observer, std::stop_token stop) const {
  return Acquisition(state_, place, catalog, observer, std::move(stop)).run();
}

void ModelCache::discard(const std::string& model) const {
  std::shared_ptr<Entry> found;  // outlives the lock
  const std::lock_guard lock(state_->mutex);
  for (const auto& entry : state_->entries) {
    if (entry->name == model && !entry->discarded) found = entry;
  }
  if (found) state_->discard(found);
}

void ModelCache::clear() const {
  std::list<std::shared_ptr<Entry>> gone;
  const std::lock_guard lock(state_->mutex);
  for (auto next = state_->entries.begin(); next != state_->entries.end();) {
    const std::shared_ptr<Entry> entry = *next++;
    if (!entry->can_go()) continue;
    gone.push_back(entry);
    state_->take(entry);
  }
}

std::vector<std::string> ModelCache::loaded() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<const Entry*> ready;
  for (const auto& entry : state_->entries) {
    if (entry->phase == Entry::Phase::kReady && !entry->discarded) ready.push_back(entry.get());
  }
  std::ranges::sort(ready, std::ranges::greater(), &Entry::used);
  std::vector<std::string> names;
  for (const Entry* entry : ready) names.push_back(entry->name);
  return names;
}

std::string ModelCache::device() const {
  const std::lock_guard lock(state_->mutex);
  return state_->device;
}

ModelCacheStats ModelCache::stats() const {
  const std::lock_guard lock(state_->mutex);
  ModelCacheStats stats = state_->totals;
  stats.weight_bytes = state_->weights();
  stats.drawing_bytes = state_->drawing();
  for (const auto& entry : state_->entries) {
    if (!entry->root) continue;
    const engine::AdapterCacheStats adapters = entry->root->adapter_cache();
    stats.adapter_hits += adapters.hits;
    stats.adapter_misses += adapters.misses;
    stats.adapter_bytes += adapters.bytes;
  }
  return stats;
}

}  // namespace limner::worker
