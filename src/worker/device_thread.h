// The thread that owns a device: it asks its worker for a job, draws it, and says how that ended.
#pragma once

#include <memory>
#include <mutex>

#include "worker/worker.h"

namespace limner::worker {

// The way from a device thread to its worker, cut when the thread is given up: from then on it
// reaches nothing that may be gone.
class Tether {
 public:
  explicit Tether(Worker& worker) : worker_(&worker) {}

  // False: it is cut, and nothing was called.
  template <typename Call>
  bool call(Call call) {
    const std::lock_guard lock(mutex_);
    if (worker_ == nullptr) return false;
    call(*worker_);
    return true;
  }
  // False: the thread is calling its worker just now, and so alive.
  bool cut() {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    worker_ = nullptr;
    return true;
  }

 private:
  std::mutex mutex_;
  Worker* worker_;  // by mutex_
};

// What a device thread owns besides its stack; lives as long as the thread, whoever gave it up.
struct Worker::Device {
  Device(Worker& worker, const ModelCache& cache, const WorkerOptions& worker_options)
      : tether(worker), models(cache), options(worker_options) {}
  Tether tether;
  Pulse pulse;
  ModelCache models;
  const WorkerOptions options;
};

class DeviceThread {
 public:
  explicit DeviceThread(std::shared_ptr<Worker::Device> device) : device_(std::move(device)) {}
  void run();

 private:
  void draw_jobs();
  void preload();
  Result<DrawingReport> draw_job(const std::shared_ptr<Assignment>& job);
  DrawingHooks hooks(const std::shared_ptr<Assignment>& job);

  const std::shared_ptr<Worker::Device> device_;
};

}  // namespace limner::worker
