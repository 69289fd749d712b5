// Queue: takes jobs, gives them to workers one lease at a time, and tells what happens to them.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <unordered_map>
#include <vector>

#include "platform/clock.h"
#include "queue/admission.h"
#include "queue/commit_group.h"
#include "queue/estimates.h"
#include "queue/open_jobs.h"
#include "queue/policy.h"
#include "queue/store.h"

namespace limner::queue {

struct QueueOptions {
  AdmissionLimits limits{};
  // Those of its policy: how soon a full tier has room again.
  TierRules rules{};
  Millis lease{15'000};         // without a heartbeat for so long, a worker is taken for dead
  int most_crashes = 3;         // vanished workers until a job is a dead letter
  int most_failures = 5;        // retryable errors until a job has failed
  Millis first_backoff{1'000};  // doubled each time, and between half and all of it by chance
  Millis longest_backoff{60'000};
  Millis keep_keys{86'400'000};  // idempotency keys live a day
  // 64 random bits, for ids and jitter; called by many threads. Absent: the system's.
  std::function<std::uint64_t()> random{};
  // Called at named points of every write; a test ends the process there.
  std::function<void(std::string_view point)> at{};
};

struct Submitted {
  enum class Kind {
    kAccepted,
    kReplayed,  // the idempotency key stands for this job already
    kConflict,  // the key stands for another body
    kRefused,   // the queue is full
  };
  Kind kind = Kind::kAccepted;
  std::string id{};                  // of an accepted or replayed job
  std::optional<Refusal> refusal{};  // of a refused one
};

// A worker's right to a job. Later writes show it; after another lease of the job they are refused.
struct Lease {
  contract::Job job{};     // whole, with its request; job.attempt is the fence
  std::stop_token stop{};  // asked when the job was canceled or the lease is lost; look every step
};

struct Completion {
  contract::JobStatus status = contract::JobStatus::kCompleted;  // or kBlocked, kFailed, kCanceled
  std::string result{};
  std::optional<Error> error{};
  contract::Usage usage{};
};

// Whose act a change is, where the audit log wants to know: written in the same transaction.
using Act = std::optional<platform::AuditAct>;

struct QueuePlace {
  std::size_t position = 0;  // 1 is next
  // Until it starts, from measured times; absent while nothing has been measured.
  std::optional<double> eta_seconds{};
  std::optional<double> eta_high_seconds{};  // not later than this nine times in ten
};

// Any thread may call. An accepted job is on the disk and is never lost; it may run more than once,
// and ends in one terminal state once. Errors: kNotFound (no such job), kCancelled (the lease is
// lost), kIo and kUnavailable (nothing is known to be written: ask again).
//
// Memory holds the order of what waits, the leases and the progress of what runs; the store holds
// everything else. One process owns a store's jobs: what ran when it ended has lost its worker.
class Queue {
 public:
  static Result<std::unique_ptr<Queue>> open(Store& store, std::unique_ptr<Policy> policy,
                                             const platform::Clock& clock, QueueOptions options);

  // The id, state and times of `job` are the queue's to give; `expires_at` may be set.
  Result<Submitted> submit(contract::Job job, std::optional<Idempotency> idempotency = {});

  // The next job for a worker that holds `warm` models; nothing when none may start.
  Result<std::optional<Lease>> lease(const std::string& worker,
                                     const std::vector<std::string>& warm = {});
  Result<void> heartbeat(const Lease& lease);
  // Told to readers at once, kept while the process lives: "progress", "preview", "image".
  Result<void> tell(const Lease& lease, const std::string& type, const std::string& data);
  // The end of a lease. Finishing twice is finishing once.
  Result<void> finish(const Lease& lease, const Completion& completion);
  Result<void> fail(const Lease& lease, const Error& error);  // retried where error.retryable
  Result<void> release(const Lease& lease);  // handed back unharmed, first of its account again

  // At once where it waits; at the next step where it runs. A terminal job stays as it is.
  Result<contract::JobStatus> cancel(const std::string& id, const Act& act = {});
  // A failed, canceled or expired job, from the start.
  Result<void> retry(const std::string& id, const Act& act = {});
  // A terminal job, as it was read: one that has moved on since is kUnavailable. Each of `objects`,
  // which its result shows, becomes a Removal in the store.
  Result<void> erase(const contract::Job& job, std::vector<std::string> objects = {},
                     const Act& act = {});
  Result<void> pause(const Act& act = {});  // no new leases, also after a restart
  Result<void> resume(const Act& act = {});
  bool paused() const;

  Result<std::optional<contract::Job>> find(const std::string& id) { return store_.find(id); }
  Result<std::vector<contract::Job>> list(const ListQuery& query) { return store_.list(query); }
  // After an id: the durable events, and those of the running attempt that are still in memory.
  Result<std::vector<contract::JobEvent>> events(const std::string& id, std::int64_t after);
  std::optional<QueuePlace> place(const std::string& id) const;  // of a waiting job
  std::size_t waiting(contract::Tier tier) const;
  // In which all that waits in the tier has started, at the tier's share of the workers; absent
  // while nothing has been measured.
  std::optional<double> drain_seconds(contract::Tier tier) const;
  std::size_t running() const;
  void set_workers(std::size_t workers);  // that lease from here; for shares and estimates

  // Ends leases without heartbeat, back-offs and jobs past their time. Call every second or so;
  // lease() does it too.
  Result<void> tick();
  // Drops what is older: idempotency keys by options, terminal jobs by `keep_jobs`.
  Result<void> sweep(Millis keep_jobs);

  // Returns when a job may be there to lease, when the time is up or when stopped.
  void wait_for_work(Millis at_most, std::stop_token stop);
  // Called after each event is durable (or, for progress, made), by the thread that made it,
  // without locks. To be set before the first job.
  void on_event(std::function<void(const contract::JobEvent&)> listener);

 private:
  Queue(Store& store, std::unique_ptr<Policy> policy, const platform::Clock& clock,
        QueueOptions options);

  Result<void> run(Operation operation);
  void commit(std::span<Operation* const> group);
  std::vector<Change> decide(std::span<Operation* const> group);
  void settle(std::span<Operation* const> group, const Result<std::vector<Written>>& written);
  void announce(std::span<const Change> changes, std::span<const Written> written) const;
  void load(bool first);  // throws; `first`: what runs has lost its worker
  void at(std::string_view point) const;

  // Under mutex_: they change the memory and add the change to be written.
  OpenJob& leased(const Lease& lease);  // throws where it is lost
  Transition transition(OpenJob& job, std::string type, std::string data);
  void start(OpenJob& job, const std::string& worker, std::vector<Change>& changes);
  void end(OpenJob& job, const Completion& completion, bool dead_letter,
           std::vector<Change>& changes);
  void requeue(OpenJob& job, Millis delay, std::vector<Change>& changes);
  void lose_worker(OpenJob& job, std::vector<Change>& changes);
  void handle_due(std::vector<Change>& changes);
  void stop_running(OpenJob& job);  // charges what it took
  void enqueue(OpenJob& job, Millis ready_at);
  OpenJob& remember(const contract::Job& job);
  double seconds_per_start(contract::Tier tier) const;
  std::optional<Refusal> refusal(const contract::Job& job) const;
  Millis backoff(int failures);
  std::string new_id();

  // A lease that is over: the attempt's own end, written before, is as good as a new one.
  Result<void> ended_before(const Lease& lease, const Error& lost);

  Store& store_;
  const platform::Clock& clock_;
  const QueueOptions options_;
  CommitGroup group_;

  mutable std::mutex mutex_;
  std::unique_ptr<Policy> policy_;  // by mutex_, like all below
  OpenJobs jobs_;
  Estimates estimates_;
  // Admitted by the present group, not yet written.
  PerTier<std::size_t> submitting_{};
  std::unordered_map<std::string, std::size_t> submitting_of_;
  std::size_t workers_ = 1;
  bool paused_ = false;
  bool stale_ = false;  // a write failed: memory and disk may differ
  std::condition_variable_any work_;
  std::function<void(const contract::JobEvent&)> listener_;  // set before the first job
};

}  // namespace limner::queue
