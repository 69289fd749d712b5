// What the queue tells of itself and of where its jobs stand.
#include <algorithm>
#include <cmath>

#include "queue/queue.h"

namespace limner::queue {

using contract::JobStatus;

namespace {

constexpr double kNineInTen = 1.2816;  // quantile of the normal distribution

}  // namespace

bool Queue::paused() const {
  const std::lock_guard lock(mutex_);
  return paused_;
}

Result<std::vector<contract::JobEvent>> Queue::events(const std::string& id, std::int64_t after) {
  auto events = store_.events(id, after);
  if (!events.ok()) return events.error();
  const std::lock_guard lock(mutex_);
  const OpenJob* job = jobs_.find(id);
  if (job != nullptr && job->running) {
    for (const contract::JobEvent& told : job->running->told) {
      if (told.id > after) events->push_back(told);
    }
  }
  std::sort(events->begin(), events->end(),
            [](const auto& one, const auto& other) { return one.id < other.id; });
  return events;
}

std::optional<QueuePlace> Queue::place(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const OpenJob* job = jobs_.find(id);
  if (job == nullptr || job->status != JobStatus::kQueued) return std::nullopt;
  const Millis now = clock_.now();
  // A job that waits for the end of its back-off has everybody before it who is ready now.
  const Place ahead = policy_->place(job->sequence).value_or(Place{policy_->size(), 0.0});
  QueuePlace place;
  place.position = ahead.ahead + 1;
  if (!estimates_.measured() || paused_) return place;
  double seconds = ahead.seconds_ahead;
  double first_free = jobs_.running() < workers_ ? 0.0 : 1e18;
  for (const std::int64_t sequence : jobs_.running_jobs()) {
    const OpenJob& running = *jobs_.find(sequence);
    const double gone = static_cast<double>((now - running.running->since).count()) / 1e3;
    const double left = std::max(0.0, running.cost - gone);
    seconds += left;
    first_free = std::min(first_free, left);
  }
  // With fewer jobs ahead than workers, the one that is free first decides.
  const double delay = std::max(0.0, static_cast<double>((job->ready_at - now).count()) / 1e3);
  const double eta = std::max({ahead.ahead == 0 ? first_free : 0.0,
                               ahead.ahead == 0 ? 0.0 : seconds / static_cast<double>(workers_),
                               job->ready_at > Millis{0} ? delay : 0.0});
  const double jobs_ahead = static_cast<double>(ahead.ahead + jobs_.running());
  const double spread = estimates_.spread(jobs_.classes.name(job->job_class));
  place.eta_seconds = eta;
  place.eta_high_seconds = eta * (1.0 + kNineInTen * spread / std::sqrt(std::max(1.0, jobs_ahead)));
  return place;
}

std::size_t Queue::waiting(contract::Tier tier) const {
  const std::lock_guard lock(mutex_);
  return policy_->size(tier);
}

std::optional<double> Queue::drain_seconds(contract::Tier tier) const {
  const std::lock_guard lock(mutex_);
  if (!estimates_.measured()) return std::nullopt;
  return static_cast<double>(policy_->size(tier)) * seconds_per_start(tier);
}

std::size_t Queue::running() const {
  const std::lock_guard lock(mutex_);
  return jobs_.running();
}

}  // namespace limner::queue
