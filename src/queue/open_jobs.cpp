#include "queue/open_jobs.h"

#include "base/check.h"

namespace limner::queue {
namespace {

std::vector<std::int64_t> until(const std::set<std::pair<Millis, std::int64_t>>& timed,
                                Millis now) {
  std::vector<std::int64_t> due;
  for (const auto& [when, sequence] : timed) {
    if (when > now) break;
    due.push_back(sequence);
  }
  return due;
}

}  // namespace

Waiting OpenJob::waiting() const {
  Waiting made;
  made.sequence = sequence;
  made.account = account;
  made.model = model;
  made.tier = tier;
  made.priority = priority;
  made.cost = cost;
  made.since = since;
  return made;
}

std::uint32_t Names::number(const std::string& name) {
  const auto [found, is_new] =
      numbers_.try_emplace(name, static_cast<std::uint32_t>(names_.size()));
  if (is_new) names_.push_back(&found->first);
  return found->second;
}

std::optional<std::uint32_t> Names::known(const std::string& name) const {
  const auto found = numbers_.find(name);
  return found == numbers_.end() ? std::nullopt : std::optional(found->second);
}

OpenJob& OpenJobs::add(OpenJob job) {
  const std::int64_t sequence = job.sequence;
  ids_.emplace(job.id, sequence);
  const auto [found, is_new] = jobs_.emplace(sequence, std::move(job));
  LIMNER_CHECK(is_new, "a job is open once");
  return found->second;
}

void OpenJobs::leave_state(const OpenJob& job) {
  running_.erase(job.sequence);
  delayed_.erase({job.ready_at, job.sequence});
  expiring_.erase({job.expires, job.sequence});
}

void OpenJobs::count_waiting(OpenJob& job, bool waits) {
  if (job.counted == waits) return;
  job.counted = waits;
  if (waits) {
    ++waiting_of_[job.account];
  } else if (--waiting_of_[job.account] == 0) {
    waiting_of_.erase(job.account);
  }
}

void OpenJobs::erase(std::int64_t sequence) {
  const auto found = jobs_.find(sequence);
  if (found == jobs_.end()) return;
  OpenJob& job = found->second;
  leave_state(job);
  count_waiting(job, false);
  ids_.erase(job.id);
  jobs_.erase(found);
}

OpenJob* OpenJobs::find(std::int64_t sequence) {
  const auto found = jobs_.find(sequence);
  return found == jobs_.end() ? nullptr : &found->second;
}

const OpenJob* OpenJobs::find(std::int64_t sequence) const {
  const auto found = jobs_.find(sequence);
  return found == jobs_.end() ? nullptr : &found->second;
}

OpenJob* OpenJobs::find(const std::string& id) {
  const auto found = ids_.find(id);
  return found == ids_.end() ? nullptr : &jobs_.at(found->second);
}

const OpenJob* OpenJobs::find(const std::string& id) const {
  const auto found = ids_.find(id);
  return found == ids_.end() ? nullptr : &jobs_.at(found->second);
}

std::size_t OpenJobs::waiting_of(const std::string& account) const {
  const std::optional<std::uint32_t> number = accounts.known(account);
  const auto found = number ? waiting_of_.find(*number) : waiting_of_.end();
  return found == waiting_of_.end() ? 0 : found->second;
}

void OpenJobs::set_running(OpenJob& job, std::unique_ptr<RunningJob> running) {
  leave_state(job);
  count_waiting(job, false);
  job.status = contract::JobStatus::kRunning;
  job.ready_at = Millis{0};
  job.running = std::move(running);
  running_.insert(job.sequence);
}

void OpenJobs::set_waiting(OpenJob& job, Millis ready_at) {
  leave_state(job);
  count_waiting(job, true);
  job.status = contract::JobStatus::kQueued;
  job.running.reset();
  job.ready_at = ready_at;
  if (ready_at > Millis{0}) delayed_.emplace(ready_at, job.sequence);
  if (job.expires > Millis{0}) expiring_.emplace(job.expires, job.sequence);
}

std::vector<std::int64_t> OpenJobs::without_heartbeat(Millis now) const {
  std::vector<std::int64_t> silent;
  for (const std::int64_t sequence : running_) {
    if (jobs_.at(sequence).running->deadline <= now) silent.push_back(sequence);
  }
  return silent;
}

std::vector<std::int64_t> OpenJobs::ready(Millis now) const {
  return until(delayed_, now);
}
std::vector<std::int64_t> OpenJobs::expired(Millis now) const {
  return until(expiring_, now);
}

bool OpenJobs::anything_due(Millis now) const {
  return (!delayed_.empty() && delayed_.begin()->first <= now) ||
         (!expiring_.empty() && expiring_.begin()->first <= now) || !without_heartbeat(now).empty();
}

std::vector<std::int64_t> OpenJobs::all() const {
  std::vector<std::int64_t> sequences;
  sequences.reserve(jobs_.size());
  for (const auto& [sequence, job] : jobs_) sequences.push_back(sequence);
  return sequences;
}

}  // namespace limner::queue
