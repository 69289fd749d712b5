// Runner: the serverless worker: takes jobs, draws them, and tells the platform how they ended.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "runpod/control_plane.h"
#include "runpod/job_drawer.h"
#include "runpod/outbox.h"

namespace limner::runpod {

struct RunnerOptions {
  std::size_t concurrency = 1;  // jobs drawn at a time, a thread each
  // Each result asks for a fresh worker, and no job is taken after the first.
  bool refresh_worker = false;
  std::chrono::milliseconds progress_every{1'000};
  std::chrono::milliseconds look_every{1'000};  // for a free slot, while there is none
  std::size_t most_undelivered = 16;            // results kept before no more jobs are taken
  OutboxOptions outbox{};
};

// The string of {"error": "..."}: JSON with error_type, error_message, retryable, hostname,
// worker_id and limner_version, as the SDK sends one for an exception.
std::string error_text(const Error& error, const PlatformSettings& settings);

// start() once, drain() once; any thread may call them.
class Runner {
 public:
  // All must outlive this.
  Runner(RunnerOptions options, ControlPlane& plane, JobDrawer& drawer, Log& log);
  ~Runner();  // as drain() without time

  void start();
  bool finished() const;  // it takes no more by itself: refresh_worker
  // Takes no more jobs at once. Those it has are finished while time allows; the others end as an
  // error that may be tried again. Results are waited for as long again. True: the platform has
  // all.
  bool drain(std::chrono::milliseconds at_most);

 private:
  struct Job {
    TakenJob taken{};
    std::stop_source stop{};
    bool running = false;                             // by mutex_
    bool canceled = false;                            // by mutex_: by its client; no result is sent
    std::chrono::steady_clock::time_point told_at{};  // the drawing thread's
  };
  using JobPointer = std::shared_ptr<Job>;

  void take_jobs(std::stop_token stop);
  std::size_t wait_for_slots(std::stop_token stop);
  void accept(TakenJob taken);
  void draw_jobs(std::stop_token stop);
  void draw(const JobPointer& job);
  void answer(const JobPointer& job, const Result<Drawn>& drawn);
  void send_error(const std::string& job, const Error& error);
  void send_pings(std::stop_token stop);
  void stop_jobs(std::stop_token stop);
  void cancel(const std::string& id);
  void pause(std::stop_token stop, std::chrono::milliseconds wait);

  const RunnerOptions options_;
  ControlPlane& plane_;
  JobDrawer& drawer_;
  Log& log_;
  Outbox outbox_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, JobPointer> jobs_;  // by mutex_, like all below: queued and running
  std::deque<JobPointer> waiting_;
  bool finished_ = false;
  bool over_ = false;                 // the time of drain() is up
  std::vector<std::jthread> asking_;  // take, stop; they end first
  std::vector<std::jthread> drawing_;
  std::jthread pinging_;
};

}  // namespace limner::runpod
