// Maintenance: what a service does at regular times: leases that ran out, what is too old, the
// disk.
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "delivery/sweeper.h"
#include "delivery/webhook_store.h"
#include "platform/clock.h"
#include "platform/metrics/metrics.h"
#include "queue/queue.h"

namespace limner::gateway {

struct Chore {
  std::string name{};  // for the log
  platform::Millis every{1'000};
  std::function<Result<void>(std::stop_token)> run{};  // ends early, and well, when stopped
};

// One thread that runs chores one after the other. A failure is logged, once a minute while it
// lasts, and tried again at the chore's next time.
class Maintenance {
 public:
  // `clock` and `log` must outlive it.
  Maintenance(std::vector<Chore> chores, const platform::Clock& clock, Log& log);
  ~Maintenance();  // stops

  void start();
  void stop();
  // Runs what is due, for the thread that start() begins. Until the next one is.
  platform::Millis run_due(const std::stop_token& stop = {});

 private:
  struct State {
    Chore chore;
    platform::Millis due;
    std::optional<platform::Millis> failing_since{}, logged_at{};
  };
  void run(State& state, const std::stop_token& stop);

  const platform::Clock& clock_;
  Log& log_;
  std::vector<State> states_;  // of the thread that runs them
  std::mutex mutex_;
  std::condition_variable_any stopped_;
  std::jthread thread_;
};

// Whether there is room to work: below `least_bytes` free on the folder's disk a service had better
// take no new jobs. Any thread.
class DiskWatch {
 public:
  DiskWatch(std::filesystem::path folder, std::uint64_t least_bytes)
      : folder_(std::move(folder)), least_bytes_(least_bytes) {}

  Result<void> look();
  // What the last look found wrong, in a sentence; "": nothing.
  std::string problem() const;

 private:
  const std::filesystem::path folder_;
  const std::uint64_t least_bytes_;
  mutable std::mutex mutex_;
  std::string problem_;  // by mutex_
};

// All must outlive the chores.
struct ChoreServices {
  queue::Queue& queue;
  queue::Store& store;  // the queue's
  delivery::ArtifactStore& artifacts;
  delivery::WebhookStore& messages;
  DiskWatch& disk;
  const platform::Clock& clock;
  platform::Metrics& metrics;
};

struct ChoreTimes {
  delivery::Lifetimes artifacts{};
  std::chrono::hours jobs{24 * 30};      // that have ended
  std::chrono::hours messages{24 * 30};  // webhooks that were delivered or given up
  platform::Millis tick{1'000};
  platform::Millis look_at_disk{2'000};
  platform::Millis remove_deleted{5'000};
  platform::Millis sweep{3'600'000};
};

// What must be on time, and is short.
std::vector<Chore> service_chores(const ChoreServices& services, const ChoreTimes& times);
// What may take long, or wait for a store that does not answer: for a thread of its own.
std::vector<Chore> sweeping_chores(const ChoreServices& services, const ChoreTimes& times);

}  // namespace limner::gateway
