#include "gateway/maintenance.h"

#include <algorithm>

#include "gateway/deleted_pictures.h"
#include "platform/disk_space.h"

namespace limner::gateway {
namespace {

using platform::Millis;

constexpr Millis kLongestWait{60'000};
constexpr Millis kLogEvery{60'000};

}  // namespace

Maintenance::Maintenance(std::vector<Chore> chores, const platform::Clock& clock, Log& log)
    : clock_(clock), log_(log) {
  for (Chore& chore : chores) states_.push_back({std::move(chore), clock.now()});
}

Maintenance::~Maintenance() {
  stop();
}

void Maintenance::start() {
  thread_ = std::jthread([this](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const Millis wait = run_due(stop);
      std::unique_lock lock(mutex_);
      stopped_.wait_for(lock, stop, wait, [] { return false; });
    }
  });
}

void Maintenance::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

Millis Maintenance::run_due(const std::stop_token& stop) {
  Millis wait = kLongestWait;
  for (State& state : states_) {
    if (stop.stop_requested()) return Millis{0};
    if (state.due <= clock_.now()) {
      run(state, stop);
      state.due = clock_.now() + state.chore.every;
    }
    wait = std::min(wait, state.due - clock_.now());
  }
  return std::max(wait, Millis{0});
}

void Maintenance::run(State& state, const std::stop_token& stop) {
  Result<void> done;
  try {
    done = state.chore.run(stop);
  } catch (const std::exception& error) {
    done = Error{ErrorCode::kInternal, error.what()};
  }
  const Millis now = clock_.now();
  if (done) {
    if (state.failing_since) {
      log_.info("a chore works again", {{"chore", std::string_view(state.chore.name)}});
    }
    state.failing_since.reset();
    state.logged_at.reset();
    return;
  }
  if (!state.failing_since) state.failing_since = now;
  if (state.logged_at && now - *state.logged_at < kLogEvery) return;
  state.logged_at = now;
  log_.warning("a chore failed",
               {{"chore", std::string_view(state.chore.name)},
                {"error", std::string_view(done.error().message)},
                {"failing_for_ms", std::int64_t{(now - *state.failing_since).count()}}});
}

Result<void> DiskWatch::look() {
  Result<void> found;
  try {
    platform::require_space(folder_, least_bytes_);
  } catch (const Failure& failure) {
    found = failure.error();
  }
  const std::scoped_lock lock(mutex_);
  problem_ = found ? "" : "The disk has too little room for new work.";
  return found;
}

std::string DiskWatch::problem() const {
  const std::scoped_lock lock(mutex_);
  return problem_;
}

std::vector<Chore> service_chores(const ChoreServices& services, const ChoreTimes& times) {
  return {
      {"queue", times.tick,
       [&queue = services.queue, &metrics = services.metrics](const std::stop_token&) {
         for (const contract::Tier tier : contract::kTiers) {
           metrics.queue_depth(contract::name(tier), queue.waiting(tier));
         }
         return queue.tick();
       }},
      {"disk", times.look_at_disk,
       [&disk = services.disk](const std::stop_token&) { return disk.look(); }},
  };
}

std::vector<Chore> sweeping_chores(const ChoreServices& services, const ChoreTimes& times) {
  const auto wall = [&clock = services.clock] { return delivery::Time(clock.wall()); };
  return {
      {"deleted pictures", times.remove_deleted,
       [&jobs = services.store,
        &artifacts = services.artifacts](const std::stop_token& stop) -> Result<void> {
         const auto seen = remove_deleted_pictures(jobs, artifacts, "", stop);
         if (!seen) return seen.error();
         return {};
       }},
      {"old jobs", times.sweep,
       [&queue = services.queue, keep = times.jobs](const std::stop_token&) {
         return queue.sweep(keep);
       }},
      {"old pictures", times.sweep,
       [&artifacts = services.artifacts, keep = times.artifacts,
        wall](const std::stop_token& stop) -> Result<void> {
         const auto swept = delivery::sweep(artifacts, keep, wall(), stop);
         if (!swept) return swept.error();
         return {};
       }},
      {"old webhook messages", times.sweep,
       [&messages = services.messages, keep = times.messages,
        wall](const std::stop_token&) -> Result<void> {
         const auto swept = messages.sweep(wall() - keep);
         if (!swept) return swept.error();
         return {};
       }},
  };
}

}  // namespace limner::gateway
