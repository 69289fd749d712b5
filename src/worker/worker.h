// Worker: takes jobs from the queue, draws them on its device, and hands them to be stored.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "worker/assignment.h"
#include "worker/drawing.h"
#include "worker/post_line.h"
#include "worker/services.h"
#include "worker/worker_state.h"

namespace limner::worker {

struct WorkerOptions {
  std::string name = "worker-1";
  int threads = 0;                     // of the CPU's arithmetic, where it is set
  std::vector<std::string> preload{};  // models to load before the first job
  std::int64_t most_batch = 8;         // pictures of a job in one model call
  Patience patience{};                 // until the thread counts as hung
  int most_hangs = 3;                  // in a row, until no fresh thread takes over by itself
  bool previews = true;
  platform::Millis progress_every{250};  // "progress" events, but for the first and the last
  platform::Millis preview_every{500};
  // Jobs whose adapters are being fetched beside the one that is drawn, each on a thread; while
  // there are so many, no job is leased.
  std::size_t most_fetching = 4;
  PostOptions post{};
  // Called on the device thread at named points of a job ("load", "adapter", "begin", "step",
  // "preview", "decode"); a test holds it there.
  std::function<void(std::string_view point)> at{};
};

struct WorkerReport {
  std::string name{};
  StateReport state{};
  std::string job{};    // that is drawn; "": none
  std::string model{};  // of that job
  std::int64_t step = 0, steps = 0;
  std::size_t jobs = 0;   // completed since the start
  std::size_t hangs = 0;  // threads given up since the start
};

// Its own threads: one that owns the device and draws (device_thread.h), one that stores
// (post_line.h), one that fetches adapters. beat() and watch() are called by the pool's. A device
// thread that hangs is given up: what it may reach is cut off, its lease runs out, and a fresh one
// takes over with a fresh model. Any thread may call.
class Worker {
 public:
  Worker(WorkerOptions options, WorkerServices services);
  ~Worker();  // as stop()

  void start();
  // Leases no more; what is leased and not begun is handed back. What runs goes on.
  void drain();
  // False: it still had leases when the time was up.
  bool wait_until_idle(platform::Millis at_most);
  // What runs is handed back at its next step; the threads end. A device thread that does not
  // answer within `grace` is given up.
  void stop(platform::Millis grace = std::chrono::seconds(10));

  void beat() { post_.beat(); }  // every third of a lease or so
  void watch();                  // every second or so
  // A fresh thread for one that was given up. False where none was.
  bool reinitialize();
  WorkerReport report() const;

 private:
  friend class DeviceThread;
  struct Device;

  // On the device thread.
  std::shared_ptr<Assignment> next();  // null: no more
  void enter(WorkerState state, const std::string& reason);
  void loaded(const std::string& model, double seconds);
  void stepped(const Assignment& job, std::int64_t step, std::int64_t steps);
  void timed(const Assignment& job, std::string_view stage, double milliseconds);
  bool wants_preview();
  void ended(const std::shared_ptr<Assignment>& job, const Result<DrawingReport>& drawn);
  void broke(const std::shared_ptr<Assignment>& job, const Error& error);

  std::shared_ptr<Assignment> lease();  // null: none now
  bool read(Assignment& job);           // false: it has been failed
  void begin_trace(Assignment& job);
  bool admit(const std::shared_ptr<Assignment>& job);
  std::shared_ptr<Assignment> take_fetched();
  void wait_for_work();
  void launch();    // under mutex_
  void finished();  // the device thread's last words
  bool cut_off();   // under mutex_; false: the thread is alive
  void give_up(platform::Millis silent);
  void fetch(std::stop_token stop);

  const WorkerOptions options_;
  const WorkerServices services_;
  StateMachine state_;
  std::stop_source draining_;   // asked: lease no more
  std::stop_source hand_back_;  // asked: what runs ends at its next step
  PostLine post_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::shared_ptr<Device> device_;  // by mutex_, like all below
  std::thread thread_;
  bool finished_ = false;  // thread_ has nothing more to do
  std::shared_ptr<Assignment> current_;
  std::int64_t step_ = 0, steps_ = 0;
  platform::Millis told_at_{0}, preview_at_{0};
  std::deque<std::shared_ptr<Assignment>> to_fetch_, fetched_;
  std::set<std::shared_ptr<Assignment>> being_fetched_;
  std::size_t fetching_ = 0;  // jobs in to_fetch_, at work, or in fetched_
  std::size_t jobs_ = 0, hangs_ = 0;
  int hangs_in_a_row_ = 0;
  std::uint64_t seen_beat_ = 0;
  platform::Millis seen_since_{0};
  std::vector<std::jthread> fetchers_;  // last: they use all of the above
};

}  // namespace limner::worker
