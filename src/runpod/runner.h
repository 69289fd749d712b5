// Runner: the serverless worker: takes jobs, draws them, and tells the platform how they ended.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
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
  std::size_t concurrency = 1;     // jobs drawn at a time, a thread each
  std::size_t most_uploading = 2;  // beside them: jobs whose files go to storage, a thread each
  // Each result asks for a fresh worker, and no job is taken after the first.
  bool refresh_worker = false;
  std::chrono::milliseconds progress_every{1'000};
  std::chrono::milliseconds look_every{1'000};   // for a free slot, and for drawings that hang
  std::chrono::milliseconds stop_grace{10'000};  // for a drawing to end when it is told to
  std::size_t most_undelivered = 16;             // results kept before no more jobs are taken
  OutboxOptions outbox{};
  std::function<void(std::string_view point)> at{};  // as DrawerHooks::at, for tests
};

// start() once, drain() once; any thread may call them. A drawing that hangs (worker::Patience) is
// given up: its job ends as an error that may be tried again and asks for a fresh worker, and no
// more jobs are taken.
class Runner {
 public:
  // All must outlive this.
  Runner(RunnerOptions options, ControlPlane& plane, JobDrawer& drawer, Log& log);
  ~Runner();  // as drain() without time; waits for drawings that hang

  void start();
  bool finished() const;  // it takes no more by itself: refresh_worker, or a drawing hangs
  // Takes no more jobs at once. Those it has are finished while time allows; the others end as an
  // error that may be tried again. Results are waited for as long again. True: the platform has
  // all.
  bool drain(std::chrono::milliseconds at_most);
  // After drain(): a drawing hangs still, so the program has to end by _exit.
  bool left_behind() const;

 private:
  struct Job {
    TakenJob taken{};
    std::stop_source stop{};
    worker::Pulse pulse{};
    std::uint64_t seen_beat = 0;                         // by mutex_, like all below
    std::chrono::steady_clock::time_point seen_since{};  // since when it is that beat
    bool canceled = false;                               // by its client; no result is sent
    bool streamed = false;                               // parts of it were told
    bool uploading = false;                              // it is drawn, and waits for the storage
    bool ended = false;  // answered or given up; what its thread says now is late
    std::chrono::steady_clock::time_point told_at{};  // the drawing thread's
  };
  using JobPointer = std::shared_ptr<Job>;
  struct Manner {
    bool streamed = false;   // after parts
    bool stops_pod = false;  // and wants a fresh worker
  };

  void take_jobs(std::stop_token stop);
  std::size_t wait_for_slots(std::stop_token stop);
  std::size_t open_slots() const;  // under mutex_
  bool begin_poll();               // whether jobs are in progress
  void accept(TakenJob taken);
  void draw_jobs(std::stop_token stop);
  void draw(const JobPointer& job);
  bool ended(const JobPointer& job) const;
  void answer(const JobPointer& job, const Result<Drawn>& drawn);
  void send_error(const std::string& job, const Error& error, Manner manner);
  void stop_all();  // what drain() has no more time for
  void watch(std::stop_token stop);
  void give_up(const JobPointer& job, const std::string& why);
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
  // Jobs that were answered, or stopped before they came, since the poll for jobs began. When it
  // brings one of them, the platform did not know that yet. (An error is no such answer: its client
  // may have had the job tried again.)
  std::set<std::string> not_wanted_;
  bool finished_ = false;
  bool over_ = false;                 // the time of drain() is up
  std::size_t hanging_ = 0;           // threads whose job was given up and that are not back
  std::string unhealthy_{};           // why a fresh worker is wanted
  std::vector<std::jthread> asking_;  // take, stop; they end first
  std::vector<std::jthread> drawing_;
  std::jthread watching_, pinging_;
};

}  // namespace limner::runpod
