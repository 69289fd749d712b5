#include "queue/queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace limner::queue {

using contract::JobStatus;

namespace {

constexpr std::size_t kMostTold = 256;  // progress events kept per running job

std::uint64_t system_random() {
  thread_local std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32) | device();
}

QueueOptions with_defaults(QueueOptions options) {
  if (!options.random) options.random = system_random;
  return options;
}

Failure no_job(const std::string& id) {
  return Failure(ErrorCode::kNotFound, fmt::format("[queue] no job {}", id));
}

Failure just_changed() {
  return Failure(
      Error{ErrorCode::kUnavailable, "[queue] the job has just changed: ask again", true});
}

// A job in the words of a transition that starts its life again.
Transition again(const contract::Job& job, std::int64_t now) {
  Transition to;
  to.sequence = job.sequence;
  to.from = job.status;
  to.from_attempt = job.attempt;
  to.attempt = job.attempt;
  to.event.job_id = job.id;
  to.event.id = job.last_event + 1;
  to.event.type = "status";
  to.event.data = contract::name(JobStatus::kQueued);
  to.event.at = now;
  to.tell = true;
  return to;
}

}  // namespace

Queue::Queue(Store& store, std::unique_ptr<Policy> policy, const platform::Clock& clock,
             QueueOptions options)
    : store_(store),
      clock_(clock),
      options_(with_defaults(std::move(options))),
      group_([this](std::span<Operation* const> group) { commit(group); }),
      policy_(std::move(policy)) {}

Result<std::unique_ptr<Queue>> Queue::open(Store& store, std::unique_ptr<Policy> policy,
                                           const platform::Clock& clock, QueueOptions options) {
  try {
    std::unique_ptr<Queue> queue(new Queue(store, std::move(policy), clock, std::move(options)));
    queue->load(true);
    queue->tick().value_or_throw();
    return queue;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

void Queue::at(std::string_view point) const {
  if (options_.at) options_.at(point);
}

Result<void> Queue::run(Operation operation) {
  group_.run(operation);
  if (operation.error) return *operation.error;
  return {};
}

void Queue::commit(std::span<Operation* const> group) {
  const std::vector<Change> changes = decide(group);
  at("decided");
  Result<std::vector<Written>> written = std::vector<Written>{};
  if (!changes.empty()) written = store_.write(changes);
  at("written");
  settle(group, written);
  at("settled");
  if (written.ok()) announce(changes, *written);
}

std::vector<Change> Queue::decide(std::span<Operation* const> group) {
  const std::lock_guard lock(mutex_);
  std::vector<Change> changes;
  submitting_ = {};
  submitting_of_.clear();
  for (Operation* one : group) {
    one->begin = one->end = changes.size();
    try {
      if (stale_) load(false);
      one->decide(changes);
      one->end = changes.size();
    } catch (const Failure& failure) {
      one->error = failure.error();
    }
  }
  return changes;
}

void Queue::settle(std::span<Operation* const> group, const Result<std::vector<Written>>& written) {
  const std::lock_guard lock(mutex_);
  if (!written.ok()) stale_ = true;
  for (Operation* one : group) {
    if (one->error) continue;
    if (one->begin < one->end && !written.ok()) {
      one->error = written.error();
      continue;
    }
    if (one->begin == one->end) continue;
    const auto answers =
        std::span<const Written>(*written).subspan(one->begin, one->end - one->begin);
    if (std::any_of(answers.begin(), answers.end(),
                    [](const Written& answer) { return answer.kind == Written::Kind::kLate; })) {
      // The disk knows better than the memory: read it again.
      stale_ = true;
      one->error = just_changed().error();
      continue;
    }
    if (one->settle) one->settle(answers);
  }
  if (!stale_) return;
  try {
    // At once, so that a worker whose finish failed keeps its lease.
    load(false);
  } catch (const Failure&) {
    // Tried again before the next decision.
  }
}

void Queue::announce(std::span<const Change> changes, std::span<const Written> written) const {
  if (!listener_) return;
  for (std::size_t index = 0; index < changes.size(); ++index) {
    if (written[index].kind != Written::Kind::kDone) continue;
    if (const auto* transition = std::get_if<Transition>(&changes[index])) {
      listener_(transition->event);
    } else if (const auto* submission = std::get_if<Submission>(&changes[index])) {
      listener_({submission->job.id, 1, "status", std::string(contract::name(JobStatus::kQueued)),
                 submission->job.created_at});
    }
  }
}

Result<Submitted> Queue::submit(contract::Job job, std::optional<Idempotency> idempotency) {
  if (!(job.work > 0.0)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[queue] a job's work must be above 0, got {}", job.work)};
  }
  const auto answer = [](const Written& known) {
    Submitted submitted;
    submitted.kind = known.kind == Written::Kind::kConflict   ? Submitted::Kind::kConflict
                     : known.kind == Written::Kind::kReplayed ? Submitted::Kind::kReplayed
                                                              : Submitted::Kind::kAccepted;
    submitted.id = known.id;
    return submitted;
  };
  if (idempotency) {
    const auto known = store_.replay(*idempotency);
    if (!known.ok()) return known.error();
    if (*known) return answer(**known);
  }
  job.status = JobStatus::kQueued;
  job.id = new_id();
  job.created_at = clock_.wall().count();
  job.last_event = 1;
  Submitted submitted;
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) {
    submitted.refusal = refusal(job);
    if (submitted.refusal) {
      submitted.kind = Submitted::Kind::kRefused;
      return;
    }
    ++submitting_[static_cast<std::size_t>(job.tier)];
    ++submitting_of_[job.account];
    changes.push_back(Submission{job, idempotency});
  };
  operation.settle = [&](std::span<const Written> written) {
    submitted = answer(written.front());
    if (submitted.kind != Submitted::Kind::kAccepted) return;
    job.sequence = written.front().sequence;
    enqueue(remember(job), Millis{0});
  };
  if (const auto done = run(std::move(operation)); !done.ok()) return done.error();
  return submitted;
}

Result<std::optional<Lease>> Queue::lease(const std::string& worker,
                                          const std::vector<std::string>& warm) {
  std::int64_t sequence = 0;
  Lease lease;
  {
    const std::lock_guard lock(mutex_);
    if (!stale_ && (paused_ || policy_->size() == 0) && !jobs_.anything_due(clock_.now())) {
      return std::optional<Lease>{};
    }
  }
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) {
    handle_due(changes);
    if (paused_) return;
    std::vector<std::uint32_t> models;
    for (const std::string& model : warm) models.push_back(jobs_.models.number(model));
    const auto next = policy_->next({models, workers_}, clock_.now());
    if (!next) return;
    OpenJob& job = *jobs_.find(next->sequence);
    start(job, worker, changes);
    lease.stop = job.running->stop.get_token();
    sequence = job.sequence;
  };
  if (const auto done = run(std::move(operation)); !done.ok()) return done.error();
  if (sequence == 0) return std::optional<Lease>{};
  auto job = store_.find(sequence);
  if (!job.ok()) return job.error();
  if (!*job) return Error{ErrorCode::kInternal, "[queue] a leased job is not in the store"};
  lease.job = std::move(**job);
  return std::optional<Lease>(std::move(lease));
}

Result<void> Queue::heartbeat(const Lease& lease) {
  const std::lock_guard lock(mutex_);
  try {
    leased(lease).running->deadline = clock_.now() + options_.lease;
    return {};
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<void> Queue::tell(const Lease& lease, const std::string& type, const std::string& data) {
  contract::JobEvent event;
  try {
    const std::lock_guard lock(mutex_);
    OpenJob& job = leased(lease);
    event = {job.id, ++job.last_event, type, data, clock_.wall().count()};
    std::deque<contract::JobEvent>& told = job.running->told;
    if (type == "preview") {
      std::erase_if(told, [](const contract::JobEvent& old) { return old.type == "preview"; });
    }
    told.push_back(event);
    if (told.size() > kMostTold) told.pop_front();
  } catch (const Failure& failure) {
    return failure.error();
  }
  if (listener_) listener_(event);
  return {};
}

Result<void> Queue::ended_before(const Lease& lease, const Error& lost) {
  const auto job = store_.find(lease.job.sequence);
  if (!job.ok()) return job.error();
  const bool ours = *job && contract::is_terminal((*job)->status) &&
                    (*job)->attempt == lease.job.attempt && !(*job)->dead_letter &&
                    (*job)->worker == lease.job.worker;
  if (ours) return {};
  return lost;
}

Result<void> Queue::finish(const Lease& lease, const Completion& completion) {
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) {
    end(leased(lease), completion, false, changes);
  };
  const auto done = run(std::move(operation));
  if (done.ok() || done.error().code != ErrorCode::kCancelled) return done;
  return ended_before(lease, done.error());
}

Result<void> Queue::fail(const Lease& lease, const Error& error) {
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) {
    OpenJob& job = leased(lease);
    ++job.failures;
    Completion completion;
    if (job.cancel_requested) {
      completion.status = JobStatus::kCanceled;
      end(job, completion, false, changes);
    } else if (error.retryable && job.failures < options_.most_failures) {
      requeue(job, backoff(job.failures), changes);
    } else {
      completion.status = JobStatus::kFailed;
      completion.error = error;
      end(job, completion, false, changes);
    }
  };
  return run(std::move(operation));
}

Result<void> Queue::release(const Lease& lease) {
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) {
    OpenJob& job = leased(lease);
    if (!job.cancel_requested) return requeue(job, Millis{0}, changes);
    Completion completion;
    completion.status = JobStatus::kCanceled;
    end(job, completion, false, changes);
  };
  return run(std::move(operation));
}

Result<JobStatus> Queue::cancel(const std::string& id, const Act& act) {
  std::optional<JobStatus> status;
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) {
    OpenJob* job = jobs_.find(id);
    if (job == nullptr) return;
    if (job->status == JobStatus::kQueued) {
      Completion completion;
      completion.status = JobStatus::kCanceled;
      end(*job, completion, false, changes);
      std::get<Transition>(changes.back()).act = act;
      status = JobStatus::kCanceled;
      return;
    }
    status = JobStatus::kRunning;
    if (job->cancel_requested) return;
    job->cancel_requested = true;
    Transition to = transition(*job, "status", "canceling");
    to.act = act;
    changes.push_back(std::move(to));
    job->running->stop.request_stop();
  };
  if (const auto done = run(std::move(operation)); !done.ok()) return done.error();
  if (status) return *status;
  const auto job = store_.find(id);
  if (!job.ok()) return job.error();
  if (!*job) return no_job(id).error();
  return (*job)->status;
}

Result<void> Queue::retry(const std::string& id, const Act& act) {
  std::optional<contract::Job> job;
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) {
    job = store_.find(id).value_or_throw();
    if (!job) throw no_job(id);
    const bool asked = std::any_of(changes.begin(), changes.end(), [&](const Change& change) {
      const auto* other = std::get_if<Transition>(&change);
      return other != nullptr && other->sequence == job->sequence;
    });
    if (asked || (job->status != JobStatus::kFailed && job->status != JobStatus::kCanceled &&
                  job->status != JobStatus::kExpired)) {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("[queue] job {} is {}: only a failed, canceled or expired one can "
                                "be tried again",
                                id, asked ? "queued" : contract::name(job->status)));
    }
    Transition to = again(*job, clock_.wall().count());
    to.act = act;
    changes.push_back(std::move(to));
  };
  operation.settle = [&](std::span<const Written>) {
    job->status = JobStatus::kQueued;
    job->crashes = job->failures = 0;
    job->cancel_requested = false;
    job->expires_at = 0;
    ++job->last_event;
    OpenJob& open = remember(*job);
    open.since = clock_.now();
    enqueue(open, Millis{0});
  };
  return run(std::move(operation));
}

Result<void> Queue::erase(const contract::Job& job, std::vector<std::string> objects,
                          const Act& act) {
  std::sort(objects.begin(), objects.end());
  objects.erase(std::unique(objects.begin(), objects.end()), objects.end());
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) {
    const auto there = store_.find(job.id).value_or_throw();
    if (!there) throw no_job(job.id);
    if (!contract::is_terminal(there->status)) {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("[queue] job {} is {}: cancel it first", job.id,
                                contract::name(there->status)));
    }
    if (there->attempt != job.attempt) throw just_changed();
    changes.push_back(Erasure{there->sequence, objects, act, clock_.wall().count()});
  };
  return run(std::move(operation));
}

Result<void> Queue::pause(const Act& act) {
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) {
    changes.push_back(Setting{"paused", "yes", act, clock_.wall().count()});
  };
  operation.settle = [&](std::span<const Written>) { paused_ = true; };
  return run(std::move(operation));
}

Result<void> Queue::resume(const Act& act) {
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) {
    changes.push_back(Setting{"paused", "no", act, clock_.wall().count()});
  };
  operation.settle = [&](std::span<const Written>) {
    paused_ = false;
    work_.notify_all();
  };
  return run(std::move(operation));
}

void Queue::set_workers(std::size_t workers) {
  const std::lock_guard lock(mutex_);
  workers_ = std::max<std::size_t>(1, workers);
}

Result<void> Queue::tick() {
  {
    const std::lock_guard lock(mutex_);
    if (!stale_ && !jobs_.anything_due(clock_.now())) return {};
  }
  Operation operation;
  operation.decide = [&](std::vector<Change>& changes) { handle_due(changes); };
  return run(std::move(operation));
}

Result<void> Queue::sweep(Millis keep_jobs) {
  const Millis now = clock_.wall();
  return store_.sweep((now - options_.keep_keys).count(), (now - keep_jobs).count());
}

void Queue::wait_for_work(Millis at_most, std::stop_token stop) {
  std::unique_lock lock(mutex_);
  work_.wait_for(lock, stop, at_most, [&] { return !paused_ && policy_->size() > 0; });
}

void Queue::on_event(std::function<void(const contract::JobEvent&)> listener) {
  listener_ = std::move(listener);
}

}  // namespace limner::queue
