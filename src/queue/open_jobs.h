// OpenJobs: what the queue remembers of every job that is not terminal.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <unordered_map>
#include <vector>

#include "contract/job.h"
#include "queue/policy.h"

namespace limner::queue {

// A lease, and what its worker has told so far.
struct RunningJob {
  std::string worker{};
  std::int64_t started_at = 0;  // milliseconds since 1970
  Millis since{0};
  Millis deadline{0};  // of the next heartbeat
  std::stop_source stop{};
  std::deque<contract::JobEvent> told{};  // newest last; previews only the newest
};

struct OpenJob {
  std::int64_t sequence = 0;
  std::string id{};
  std::uint32_t account = 0, model = 0, job_class = 0;  // numbers of Names
  contract::Tier tier = contract::Tier::kRelax;
  contract::JobStatus status = contract::JobStatus::kQueued;
  std::int32_t priority = 0, attempt = 0, crashes = 0, failures = 0;
  bool cancel_requested = false;
  double work = 1.0;
  double cost = 1.0;                            // seconds, as the policy was told
  std::int64_t created_at = 0, expires_at = 0;  // milliseconds since 1970
  std::int64_t last_event = 0;
  Millis since{0};       // accepted, by the monotonic clock
  Millis ready_at{0};    // end of the back-off; 0: waits in the policy
  Millis expires{0};     // by the monotonic clock; 0: never
  bool counted = false;  // among its account's waiting jobs
  std::unique_ptr<RunningJob> running{};

  Waiting waiting() const;
};

// Numbers for names that come again and again. Never forgets: accounts and models are few.
class Names {
 public:
  std::uint32_t number(const std::string& name);
  std::optional<std::uint32_t> known(const std::string& name) const;
  const std::string& name(std::uint32_t number) const { return *names_[number]; }

 private:
  std::unordered_map<std::string, std::uint32_t> numbers_;
  std::vector<const std::string*> names_;
};

// Used under the queue's mutex.
class OpenJobs {
 public:
  OpenJob& add(OpenJob job);
  void erase(std::int64_t sequence);
  OpenJob* find(std::int64_t sequence);
  const OpenJob* find(std::int64_t sequence) const;
  OpenJob* find(const std::string& id);
  const OpenJob* find(const std::string& id) const;
  std::size_t running() const { return running_.size(); }
  std::size_t waiting_of(const std::string& account) const;
  bool empty() const { return jobs_.empty(); }

  // Each keeps the lists below right.
  void set_running(OpenJob& job, std::unique_ptr<RunningJob> running);
  void set_waiting(OpenJob& job, Millis ready_at);

  // Jobs whose time has come.
  std::vector<std::int64_t> without_heartbeat(Millis now) const;
  std::vector<std::int64_t> ready(Millis now) const;
  std::vector<std::int64_t> expired(Millis now) const;
  bool anything_due(Millis now) const;
  std::vector<std::int64_t> all() const;
  const std::set<std::int64_t>& running_jobs() const { return running_; }

  Names accounts, models, classes;

 private:
  using Timed = std::set<std::pair<Millis, std::int64_t>>;
  void leave_state(const OpenJob& job);
  void count_waiting(OpenJob& job, bool waits);

  std::unordered_map<std::int64_t, OpenJob> jobs_;
  std::unordered_map<std::string, std::int64_t> ids_;
  std::unordered_map<std::uint32_t, std::size_t> waiting_of_;
  std::set<std::int64_t> running_;
  Timed delayed_;   // by ready_at
  Timed expiring_;  // queued jobs by expires
};

}  // namespace limner::queue
