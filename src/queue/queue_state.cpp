// The queue's memory: what each step of a job's life does to it. Everything here runs under mutex_.
#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "queue/queue.h"

namespace limner::queue {

using contract::JobStatus;

namespace {

constexpr std::int64_t kWeek = 7LL * 24 * 3600 * 1000;
constexpr std::size_t kLearnFrom = 2'000;

// Events that were told but not written are lost with the process: a new one starts its ids beyond
// them.
constexpr int kEventEpochBits = 20;

}  // namespace

OpenJob& Queue::leased(const Lease& lease) {
  OpenJob* job = jobs_.find(lease.job.sequence);
  if (job == nullptr || job->status != JobStatus::kRunning || job->attempt != lease.job.attempt) {
    throw Failure(ErrorCode::kCancelled,
                  fmt::format("[queue] attempt {} of job {} has lost its lease", lease.job.attempt,
                              lease.job.id));
  }
  return *job;
}

Transition Queue::transition(OpenJob& job, std::string type, std::string data) {
  Transition to;
  to.sequence = job.sequence;
  to.from = job.status;
  to.from_attempt = job.attempt;
  to.status = job.status;
  to.attempt = job.attempt;
  to.crashes = job.crashes;
  to.failures = job.failures;
  to.cancel_requested = job.cancel_requested;
  to.expires_at = job.expires_at;
  if (job.running) {
    to.worker = job.running->worker;
    to.started_at = job.running->started_at;
  }
  to.event.job_id = job.id;
  to.event.id = ++job.last_event;
  to.event.type = std::move(type);
  to.event.data = std::move(data);
  to.event.at = clock_.wall().count();
  return to;
}

void Queue::start(OpenJob& job, const std::string& worker, std::vector<Change>& changes) {
  Transition to = transition(job, "status", std::string(contract::name(JobStatus::kRunning)));
  ++job.attempt;
  auto running = std::make_unique<RunningJob>();
  running->worker = worker;
  running->started_at = to.event.at;
  running->since = clock_.now();
  running->deadline = clock_.now() + options_.lease;
  jobs_.set_running(job, std::move(running));
  to.status = JobStatus::kRunning;
  to.attempt = job.attempt;
  to.worker = worker;
  to.started_at = job.running->started_at;
  to.tell = true;
  changes.push_back(std::move(to));
}

void Queue::stop_running(OpenJob& job) {
  const Millis took = clock_.now() - job.running->since;
  policy_->settle(job.waiting(), static_cast<double>(took.count()) / 1e3);
  job.running->stop.request_stop();
}

void Queue::end(OpenJob& job, const Completion& completion, bool dead_letter,
                std::vector<Change>& changes) {
  LIMNER_CHECK(contract::is_terminal(completion.status), "a job ends in a terminal state");
  Transition to = transition(job, std::string(contract::name(completion.status)), "");
  to.status = completion.status;
  to.dead_letter = dead_letter;
  to.finished_at = to.event.at;
  to.result = completion.result;
  to.error = completion.error;
  to.tell = true;
  if (job.running && completion.usage.seconds > 0.0) to.usage = completion.usage;
  if (completion.status == JobStatus::kCompleted) {
    estimates_.learn(jobs_.classes.name(job.job_class), job.work, completion.usage.seconds);
  }
  if (job.running) {
    stop_running(job);
  } else {
    policy_->remove(job.sequence);
  }
  changes.push_back(std::move(to));
  jobs_.erase(job.sequence);
}

void Queue::requeue(OpenJob& job, Millis delay, std::vector<Change>& changes) {
  Transition to = transition(job, "status", std::string(contract::name(JobStatus::kQueued)));
  to.status = JobStatus::kQueued;
  to.not_before = delay > Millis{0} ? (clock_.wall() + delay).count() : 0;
  changes.push_back(std::move(to));
  stop_running(job);
  enqueue(job, delay > Millis{0} ? clock_.now() + delay : Millis{0});
}

// Into the policy, or, until `ready_at`, beside it.
void Queue::enqueue(OpenJob& job, Millis ready_at) {
  jobs_.set_waiting(job, ready_at);
  if (ready_at > Millis{0}) return;
  policy_->add(job.waiting(), clock_.now());
  work_.notify_one();
}

void Queue::lose_worker(OpenJob& job, std::vector<Change>& changes) {
  ++job.crashes;
  Completion completion;
  if (job.cancel_requested) {
    completion.status = JobStatus::kCanceled;
    return end(job, completion, false, changes);
  }
  if (job.crashes < options_.most_crashes) return requeue(job, Millis{0}, changes);
  completion.status = JobStatus::kFailed;
  completion.error =
      Error{ErrorCode::kInternal,
            fmt::format("[queue] {} workers vanished while they ran this job", job.crashes)};
  end(job, completion, true, changes);
}

void Queue::handle_due(std::vector<Change>& changes) {
  const Millis now = clock_.now();
  for (const std::int64_t sequence : jobs_.without_heartbeat(now)) {
    lose_worker(*jobs_.find(sequence), changes);
  }
  for (const std::int64_t sequence : jobs_.expired(now)) {
    Completion completion;
    completion.status = JobStatus::kExpired;
    end(*jobs_.find(sequence), completion, false, changes);
  }
  for (const std::int64_t sequence : jobs_.ready(now)) enqueue(*jobs_.find(sequence), Millis{0});
}

OpenJob& Queue::remember(const contract::Job& job) {
  OpenJob made;
  made.sequence = job.sequence;
  made.id = job.id;
  made.account = jobs_.accounts.number(job.account);
  made.model = jobs_.models.number(job.model);
  made.job_class = jobs_.classes.number(job.job_class);
  made.tier = job.tier;
  made.status = job.status;
  made.priority = job.priority;
  made.attempt = job.attempt;
  made.crashes = job.crashes;
  made.failures = job.failures;
  made.cancel_requested = job.cancel_requested;
  made.work = job.work;
  made.cost = estimates_.cost(job.job_class, job.work);
  made.created_at = job.created_at;
  made.expires_at = job.expires_at;
  made.last_event = job.last_event;
  const std::int64_t wall = clock_.wall().count();
  made.since = clock_.now() - Millis{std::max<std::int64_t>(0, wall - job.created_at)};
  if (job.expires_at > 0) {
    made.expires = std::max(Millis{1}, clock_.now() + Millis{job.expires_at - wall});
  }
  return jobs_.add(std::move(made));
}

void Queue::load(bool first) {
  std::unordered_map<std::int64_t, std::pair<std::int32_t, std::unique_ptr<RunningJob>>> leases;
  for (const std::int64_t sequence : jobs_.running_jobs()) {
    OpenJob* job = jobs_.find(sequence);
    leases.emplace(sequence, std::pair{job->attempt, std::move(job->running)});
  }
  for (const std::int64_t sequence : jobs_.all()) {
    policy_->remove(sequence);
    jobs_.erase(sequence);
  }
  if (first) {
    auto usage = store_.usage(clock_.wall().count() - kWeek, kLearnFrom).value_or_throw();
    std::reverse(usage.begin(), usage.end());
    for (const UsageRow& row : usage) estimates_.learn(row.job_class, row.work, row.usage.seconds);
  }
  const Millis now = clock_.now();
  store_
      .each_open([&](const contract::Job& stored) {
        OpenJob& job = remember(stored);
        if (job.status == JobStatus::kQueued) {
          const Millis wait{stored.not_before - clock_.wall().count()};
          const bool delayed = stored.not_before > 0 && wait > Millis{0};
          // The wall clock may have jumped: no back-off is longer than the longest.
          enqueue(job, delayed ? now + std::min(wait, options_.longest_backoff) : Millis{0});
          return;
        }
        auto known = leases.find(job.sequence);
        if (known != leases.end() && known->second.first == job.attempt) {
          return jobs_.set_running(job, std::move(known->second.second));
        }
        auto running = std::make_unique<RunningJob>();
        running->worker = stored.worker;
        running->started_at = stored.started_at;
        running->since = now;
        running->deadline = first ? now : now + options_.lease;
        if (first) job.last_event = ((job.last_event >> kEventEpochBits) + 1) << kEventEpochBits;
        jobs_.set_running(job, std::move(running));
      })
      .value_or_throw();
  paused_ = store_.setting("paused").value_or_throw() == "yes";
  stale_ = false;
}

double Queue::seconds_per_start(contract::Tier tier) const {
  const TierRules& rules = options_.rules;
  double weights = 0.0;
  for (const double weight : rules.weights) weights += weight;
  const double share = rules.weights[static_cast<std::size_t>(tier)] / weights;
  return estimates_.mean_seconds() / static_cast<double>(workers_) /
         std::max(rules.reserved, share);
}

std::optional<Refusal> Queue::refusal(const contract::Job& job) const {
  const auto tier = static_cast<std::size_t>(job.tier);
  const auto submitting = submitting_of_.find(job.account);
  AdmissionState state;
  state.tier = job.tier;
  state.waiting_in_tier = policy_->size(job.tier) + submitting_[tier];
  state.waiting_of_account =
      jobs_.waiting_of(job.account) + (submitting == submitting_of_.end() ? 0 : submitting->second);
  state.seconds_per_start = seconds_per_start(job.tier);
  return refuse(state, options_.limits);
}

Millis Queue::backoff(int failures) {
  Millis longest = options_.first_backoff;
  for (int failure = 1; failure < failures && longest < options_.longest_backoff; ++failure) {
    longest *= 2;
  }
  longest = std::min(longest, options_.longest_backoff);
  const auto half = static_cast<std::uint64_t>(longest.count() / 2);
  return Millis{static_cast<std::int64_t>(half + options_.random() % (half + 1))};
}

// A UUID of version 7 (RFC 9562): in order of time, so that new rows lie side by side.
std::string Queue::new_id() {
  const auto time = static_cast<std::uint64_t>(clock_.wall().count()) & 0xffffffffffffULL;
  const std::uint64_t high = options_.random(), low = options_.random();
  return fmt::format("{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}", time >> 16, time & 0xffff,
                     high & 0xfff, 0x8000 | (low >> 50), low & 0xffffffffffffULL);
}

}  // namespace limner::queue
