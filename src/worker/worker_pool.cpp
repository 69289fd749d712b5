#include "worker/worker_pool.h"

#include <fmt/format.h>

#include <algorithm>

namespace limner::worker {

WorkerPool::WorkerPool(WorkerPoolOptions options, PoolServices services)
    : options_(std::move(options)),
      services_(std::move(services)),
      adapters_(options_.adapters),
      breakers_(options_.breaker, services_.clock) {
  const WorkerServices shared{services_.queue,  services_.store,   services_.catalog,
                              services_.models, adapters_,         breakers_,
                              hashes_,          services_.metrics, services_.log,
                              services_.clock,  services_.tracer};
  for (std::size_t index = 0; index < options_.workers; ++index) {
    WorkerOptions one = options_.worker;
    one.name = fmt::format("{}-{}", options_.name, index + 1);
    one.preload = index == 0 ? options_.preload : std::vector<std::string>{};
    one.threads = options_.threads;
    if (one.threads == 0 && options_.workers > 1) {
      const auto cores = static_cast<std::size_t>(std::thread::hardware_concurrency());
      one.threads = static_cast<int>(std::max<std::size_t>(1, cores / options_.workers));
    }
    workers_.push_back(std::make_unique<Worker>(std::move(one), shared));
  }
}

WorkerPool::~WorkerPool() {
  stop();
}

void WorkerPool::start() {
  services_.queue.set_workers(workers_.size());
  for (const auto& worker : workers_) worker->start();
  looker_ = std::jthread([this](std::stop_token stop) { look(std::move(stop)); });
}

bool WorkerPool::drain(platform::Millis at_most) {
  for (const auto& worker : workers_) worker->drain();
  const platform::Millis until = services_.clock.now() + at_most;
  bool idle = true;
  for (const auto& worker : workers_) {
    const platform::Millis left = until - services_.clock.now();
    idle &= worker->wait_until_idle(std::max(platform::Millis{0}, left));
  }
  stop();
  return idle;
}

void WorkerPool::stop() {
  const std::lock_guard one(stopping_);
  for (const auto& worker : workers_) worker->drain();
  for (const auto& worker : workers_) worker->stop();
  looker_.request_stop();
  if (looker_.joinable()) looker_.join();
}

std::vector<WorkerReport> WorkerPool::report() const {
  std::vector<WorkerReport> reports;
  for (const auto& worker : workers_) reports.push_back(worker->report());
  return reports;
}

bool WorkerPool::ready() const {
  return std::ranges::any_of(workers_, [](const auto& worker) {
    const WorkerReport report = worker->report();
    const WorkerState state = report.state.state;
    const bool loads_ahead = state == WorkerState::kLoadingModel && report.job.empty();
    return state != WorkerState::kInitializing && state != WorkerState::kUnhealthy && !loads_ahead;
  });
}

bool WorkerPool::left_behind() const {
  return std::ranges::any_of(workers_,
                             [](const auto& worker) { return worker->report().hangs > 0; });
}

std::size_t WorkerPool::reinitialize() {
  return static_cast<std::size_t>(
      std::ranges::count_if(workers_, [](const auto& worker) { return worker->reinitialize(); }));
}

void WorkerPool::look(std::stop_token stop) {
  platform::Millis beaten_at = services_.clock.now();
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, stop, options_.look_every, [] { return false; });
    }
    const platform::Millis now = services_.clock.now();
    for (const auto& worker : workers_) worker->watch();
    if (now - beaten_at >= options_.heartbeat_every) {
      beaten_at = now;
      for (const auto& worker : workers_) worker->beat();
    }
    const auto ticked = services_.queue.tick();
    if (!ticked.ok()) {
      services_.log.warning("the queue could not end what is due; it is tried again",
                            {{"error", ticked.error().message}});
    }
    measure();
  }
}

void WorkerPool::measure() {
  const ModelCacheStats stats = services_.models.stats();
  services_.metrics.adapter_cache(stats.adapter_hits, stats.adapter_misses);
  const std::string device = services_.models.device();
  if (device.empty()) return;  // nothing was loaded yet
  services_.metrics.memory(device, "weights", static_cast<double>(stats.weight_bytes));
  services_.metrics.memory(device, "drawing", static_cast<double>(stats.drawing_bytes));
  services_.metrics.memory(device, "adapters", static_cast<double>(stats.adapter_bytes));
}

}  // namespace limner::worker
