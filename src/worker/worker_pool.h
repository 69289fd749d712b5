// WorkerPool: the workers of a process, and the thread that looks after them.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "platform/circuit_breaker.h"
#include "worker/worker.h"

namespace limner::worker {

struct WorkerPoolOptions {
  std::size_t workers = 1;
  // Of the CPU's arithmetic, for each worker; 0: the machine's cores shared among them.
  int threads = 0;
  std::string name = "worker";         // they are NAME-1, NAME-2, ...
  std::vector<std::string> preload{};  // by the first of them, before its first job
  WorkerOptions worker{};              // of each; its name, threads and preload are set here
  AdapterResolverOptions adapters{};
  // Of each model. Shorter than the queue tries a job again, so that a probe comes in time.
  platform::BreakerOptions breaker{.failures = 3, .pause = std::chrono::seconds(5)};
  platform::Millis heartbeat_every{5'000};
  platform::Millis look_every{500};
};

// What the pool is handed; all of it outlives the pool.
struct PoolServices {
  queue::Queue& queue;
  delivery::ArtifactStore& store;
  CatalogBuilder& catalog;
  ModelCache models;
  platform::Metrics& metrics;
  Log& log;
  const platform::Clock& clock;
  platform::Tracer* tracer = nullptr;
};

// Any thread may call.
class WorkerPool {
 public:
  WorkerPool(WorkerPoolOptions options, PoolServices services);
  ~WorkerPool();  // as stop()

  void start();
  // Takes no more jobs and hands back those that have not begun; those that run are finished, and
  // handed back at their next step when the time is up. True: all were finished.
  bool drain(platform::Millis at_most);
  // What runs is handed back at its next step, also while another thread drains. A thread that does
  // not answer is left behind: while it lives in a call of the engine, libtorch may not be
  // unloaded, so a program ends by _exit.
  void stop();

  std::vector<WorkerReport> report() const;
  bool ready() const;        // one worker at least can take a job
  bool left_behind() const;  // a thread was given up since the start
  // A fresh thread for every worker that has none. How many there were.
  std::size_t reinitialize();

 private:
  void look(std::stop_token stop);
  void measure();

  const WorkerPoolOptions options_;
  const PoolServices services_;
  AdapterResolver adapters_;
  ModelBreakers breakers_;
  engine::lora::AdapterHashes hashes_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::mutex stopping_;  // held while the workers are stopped: one thread does, others wait
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::jthread looker_;  // last: it uses all of the above
};

}  // namespace limner::worker
