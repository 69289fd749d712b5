#include "worker/worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "worker/device_thread.h"

namespace limner::worker {
namespace {

using std::chrono::milliseconds;

constexpr platform::Millis kShortWait{20};    // while something else than the queue may have work
constexpr platform::Millis kLongWait{1'000};  // the queue is asked so often, whatever it says

// What the job is told, and whether trying it again may help.
Error for_the_job(Error error, const Assignment& job) {
  switch (error.code) {
    case ErrorCode::kIo:
    case ErrorCode::kUnavailable:
    case ErrorCode::kDeadlineExceeded:
      error.retryable = true;
      break;
    case ErrorCode::kInternal:  // once more, with a fresh model
      error.retryable = job.lease.job.failures == 0;
      break;
    case ErrorCode::kOutOfMemory:  // retryable where others hold the memory
      break;
    default:
      error.retryable = false;
  }
  return error;
}

}  // namespace

Worker::Worker(WorkerOptions options, WorkerServices services)
    : options_(std::move(options)),
      services_(std::move(services)),
      state_(services_.clock),
      post_(options_.post, services_, [this] {
        const std::lock_guard lock(mutex_);
        ++jobs_;
      }) {}

Worker::~Worker() {
  stop();
}

void Worker::start() {
  const std::lock_guard lock(mutex_);
  launch();
  for (std::size_t index = 0; index < options_.most_fetching; ++index) {
    fetchers_.emplace_back([this](std::stop_token stop) { fetch(std::move(stop)); });
  }
}

void Worker::launch() {
  device_ = std::make_shared<Device>(*this, services_.models, options_);
  seen_beat_ = 0;
  finished_ = false;
  thread_ = std::thread([device = device_] { DeviceThread(device).run(); });
}

void Worker::finished() {
  const std::lock_guard lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

void Worker::drain() {
  draining_.request_stop();
  std::deque<std::shared_ptr<Assignment>> waiting;
  {
    const std::lock_guard lock(mutex_);
    std::swap(waiting, to_fetch_);
    waiting.insert(waiting.end(), fetched_.begin(), fetched_.end());
    fetched_.clear();
    fetching_ = being_fetched_.size();
    for (const auto& job : being_fetched_) job->stop.request_stop();
    changed_.notify_all();
  }
  for (const auto& job : waiting) post_.release(job);
}

bool Worker::wait_until_idle(platform::Millis at_most) {
  post_.wait_until_empty(at_most);
  return post_.empty();
}

void Worker::stop(platform::Millis grace) {
  drain();
  hand_back_.request_stop();
  fetchers_.clear();
  {
    std::unique_lock lock(mutex_);
    const auto ended = [&] { return finished_ || !device_; };
    bool gone = changed_.wait_for(lock, grace, ended) || cut_off();
    while (!gone) gone = changed_.wait_for(lock, kShortWait, ended) || cut_off();
    if (thread_.joinable()) thread_.join();
    device_.reset();
  }
  post_.stop();
}

bool Worker::cut_off() {
  if (!device_->tether.cut()) return false;
  thread_.detach();
  device_.reset();
  return true;
}

void Worker::enter(WorkerState state, const std::string& reason) {
  state_.enter(state, reason);
}

void Worker::loaded(const std::string& model, double seconds) {
  services_.metrics.model_load(model, seconds);
  services_.log.info("a model was loaded",
                     {{"worker", options_.name}, {"model", model}, {"seconds", seconds}});
}

// ---- which job is next

std::shared_ptr<Assignment> Worker::next() {
  while (!draining_.stop_requested()) {
    std::shared_ptr<Assignment> job = take_fetched();
    if (!job && post_.has_room()) job = lease();
    if (job && admit(job)) return job;
    if (!job) wait_for_work();
  }
  return nullptr;
}

std::shared_ptr<Assignment> Worker::take_fetched() {
  const std::lock_guard lock(mutex_);
  if (fetched_.empty()) return nullptr;
  std::shared_ptr<Assignment> job = std::move(fetched_.front());
  fetched_.pop_front();
  --fetching_;
  return job;
}

std::shared_ptr<Assignment> Worker::lease() {
  {
    const std::lock_guard lock(mutex_);
    if (fetching_ >= options_.most_fetching) return nullptr;
  }
  auto leased = services_.queue.lease(options_.name, services_.models.loaded());
  if (!leased.ok()) {
    services_.log.error("no job could be leased",
                        {{"worker", options_.name}, {"error", leased.error().message}});
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, draining_.get_token(), kLongWait, [] { return false; });
    return nullptr;
  }
  if (!*leased) return nullptr;
  auto job =
      std::make_shared<Assignment>(std::move(**leased), hand_back_.get_token(), services_.clock);
  post_.add(job);
  const contract::Job& row = job->lease.job;
  const double waited = static_cast<double>(row.started_at - row.queued_at) / 1e3;
  services_.metrics.queue_wait(contract::name(row.tier), waited);
  if (!read(*job)) {
    post_.fail(job, std::move(*job->problem));
    return nullptr;
  }
  if (!AdapterResolver::needs_time(job->request.adapters)) return job;
  const std::lock_guard lock(mutex_);
  to_fetch_.push_back(std::move(job));
  ++fetching_;
  changed_.notify_all();
  return nullptr;
}

bool Worker::read(Assignment& job) {
  auto request = contract::job_request_from_text(job.lease.job.request);
  if (!request.ok()) {
    job.problem = request.error();
    return false;
  }
  job.request = std::move(*request);
  begin_trace(job);
  job.catalog = services_.catalog.catalog();
  const auto place = services_.catalog.place(job.request.model);
  if (!place) {
    job.problem = Error{ErrorCode::kNotFound,
                        fmt::format("there is no model '{}' any more", job.request.model)};
    return false;
  }
  if (!place->problem.empty()) {
    job.problem = Error{ErrorCode::kInvalidModel,
                        fmt::format("model '{}' cannot be used: {}", place->name, place->problem)};
    return false;
  }
  job.place = *place;
  if (AdapterResolver::needs_time(job.request.adapters)) return true;
  auto adapters = services_.adapters.resolve(job.request.adapters, job.stop.get_token());
  if (!adapters.ok()) {
    job.problem = for_the_job(adapters.error(), job);
    return false;
  }
  job.adapters = std::move(*adapters);
  return true;
}

void Worker::begin_trace(Assignment& job) {
  if (services_.tracer == nullptr) return;
  const contract::Job& row = job.lease.job;
  services_.tracer
      ->start_span({.name = "queue",
                    .parent = job.request.traceparent,
                    .started_at = platform::Millis(row.queued_at)},
                   {{"limner.request_id", row.id}, {"limner.tier", contract::name(row.tier)}})
      .end();
  job.span = services_.tracer->start_span(
      {.name = "job", .parent = job.request.traceparent, .kind = platform::SpanKind::kConsumer},
      {{"limner.request_id", row.id},
       {"limner.model", job.request.model},
       {"limner.attempt", static_cast<std::int64_t>(row.attempt)},
       {"limner.worker", options_.name}});
}

bool Worker::admit(const std::shared_ptr<Assignment>& job) {
  if (job->stop.stop_requested() || draining_.stop_requested()) {
    job->given_up() ? post_.cancel(job) : post_.release(job);
    return false;
  }
  const auto entered = services_.breakers.of(job->place.name).enter();
  if (!entered.ok()) {
    post_.fail(job, entered.error());
    return false;
  }
  {
    const std::lock_guard lock(mutex_);
    current_ = job;
    step_ = steps_ = 0;
    told_at_ = platform::Millis{0};
    preview_at_ = services_.clock.now();
  }
  enter(WorkerState::kProcessingRequest, fmt::format("job {}", job->lease.job.id));
  return true;
}

void Worker::wait_for_work() {
  bool elsewhere = !post_.has_room();
  {
    const std::lock_guard lock(mutex_);
    elsewhere |= fetching_ > 0;
  }
  // A queue that has work wakes at once, so a full line must be waited for here.
  if (!post_.has_room()) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, draining_.get_token(), kShortWait, [] { return false; });
    return;
  }
  services_.queue.wait_for_work(elsewhere ? kShortWait : kLongWait, draining_.get_token());
}

// ---- adapters that take time

void Worker::fetch(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (!changed_.wait(lock, stop, [&] { return !to_fetch_.empty(); })) continue;
    std::shared_ptr<Assignment> job = std::move(to_fetch_.front());
    to_fetch_.pop_front();
    being_fetched_.insert(job);
    lock.unlock();
    auto adapters = services_.adapters.resolve(job->request.adapters, job->stop.get_token());
    const bool stopped = job->stop.stop_requested();
    if (adapters.ok()) {
      job->adapters = std::move(*adapters);
    } else if (!stopped) {
      post_.fail(job, for_the_job(adapters.error(), *job));
    }
    const bool draining = draining_.stop_requested();
    if (draining && (adapters.ok() || stopped)) post_.release(job);
    lock.lock();
    being_fetched_.erase(job);
    if (!draining && (adapters.ok() || stopped)) {
      fetched_.push_back(std::move(job));  // a stopped one ends where it would be drawn
    } else {
      --fetching_;
    }
    changed_.notify_all();
  }
}

// ---- how a job goes

void Worker::stepped(const Assignment& job, std::int64_t step, std::int64_t steps) {
  const platform::Millis now = services_.clock.now();
  {
    const std::lock_guard lock(mutex_);
    const bool due = step_ == 0 || step == steps || now - told_at_ >= options_.progress_every;
    step_ = step;
    steps_ = steps;
    if (!due) return;
    told_at_ = now;
  }
  // Who lost the lease hears it before the next step.
  (void)services_.queue.tell(job.lease, "progress",
                             fmt::format(R"({{"step":{},"steps":{},"value":{:.4f}}})", step, steps,
                                         static_cast<double>(step) / static_cast<double>(steps)));
}

void Worker::timed(const Assignment& job, std::string_view stage, double milliseconds) {
  if (services_.tracer == nullptr) return;
  const platform::Millis took{static_cast<std::int64_t>(milliseconds)};
  services_.tracer
      ->start_span({.name = stage,
                    .parent = job.span.traceparent(),
                    .started_at = services_.clock.wall() - took})
      .end();
}

bool Worker::wants_preview() {
  if (!options_.previews) return false;
  const platform::Millis now = services_.clock.now();
  const std::lock_guard lock(mutex_);
  if (now - preview_at_ < options_.preview_every) return false;
  preview_at_ = now;
  return true;
}

void Worker::ended(const std::shared_ptr<Assignment>& job, const Result<DrawingReport>& drawn) {
  {
    const std::lock_guard lock(mutex_);
    current_.reset();
    if (drawn.ok()) hangs_in_a_row_ = 0;
  }
  if (drawn.ok()) {
    services_.breakers.of(job->place.name).succeeded();
    post_.complete(job, *drawn);
    return enter(WorkerState::kIdle, "handed over");
  }
  const Error& error = drawn.error();
  if (job->stop.stop_requested() || job->over) {
    const bool given_up = job->given_up();
    if (given_up) {
      const platform::Millis took =
          services_.clock.now() - platform::Millis{job->stop_asked_at.load()};
      services_.metrics.cancel_latency(static_cast<double>(took.count()) / 1e3);
    }
    given_up ? post_.cancel(job) : post_.release(job);
    return enter(WorkerState::kIdle, given_up ? "the job was canceled" : "the job was handed back");
  }
  broke(job, error);
}

void Worker::broke(const std::shared_ptr<Assignment>& job, const Error& error) {
  const bool loading = state_.state() == WorkerState::kLoadingModel;
  const bool ours =
      error.code == ErrorCode::kInternal || (loading && error.code != ErrorCode::kOutOfMemory);
  if (!ours) {
    enter(WorkerState::kIdle, "the job was refused");
  } else {
    enter(WorkerState::kError, error.message);
    services_.breakers.of(job->place.name).failed();
    enter(WorkerState::kRecovering, fmt::format("model {} is dropped", job->place.name));
    services_.models.discard(job->place.name);
    enter(WorkerState::kIdle, "recovered");
  }
  post_.fail(job, for_the_job(error, *job));
}

// ---- a thread that hangs

void Worker::watch() {
  const platform::Millis now = services_.clock.now();
  platform::Millis silent{0};
  {
    const std::lock_guard lock(mutex_);
    if (!device_) return;
    const Pulse::Beat beat = device_->pulse.read();
    if (beat.limit == platform::Millis{0} || beat.number != seen_beat_) {
      seen_beat_ = beat.number;
      seen_since_ = now;
      return;
    }
    silent = now - seen_since_;
    if (silent <= beat.limit) return;
  }
  give_up(silent);
}

void Worker::give_up(platform::Millis silent) {
  std::shared_ptr<Assignment> job;
  bool again = false;
  {
    const std::lock_guard lock(mutex_);
    if (!device_ || !cut_off()) return;  // it came back just now
    std::swap(job, current_);
    ++hangs_;
    again = ++hangs_in_a_row_ < options_.most_hangs && !draining_.stop_requested();
  }
  const std::string reason =
      fmt::format("no sign of life for {} s while {}", silent.count() / 1000, name(state_.state()));
  services_.log.error("a device thread hangs and is given up",
                      {{"worker", options_.name},
                       {"request_id", job ? std::string_view(job->lease.job.id) : ""},
                       {"error", reason}});
  enter(WorkerState::kUnhealthy, reason);
  if (job) {
    services_.breakers.of(job->place.name).failed();
    services_.models.discard(job->place.name);
    post_.forget(job);
  }
  if (again) reinitialize();
}

bool Worker::reinitialize() {
  const std::lock_guard lock(mutex_);
  if (device_ || draining_.stop_requested()) return false;
  enter(WorkerState::kInitializing, "a fresh thread takes over");
  launch();
  return true;
}

WorkerReport Worker::report() const {
  WorkerReport report;
  report.name = options_.name;
  report.state = state_.report();
  const std::lock_guard lock(mutex_);
  if (current_) {
    report.job = current_->lease.job.id;
    report.model = current_->place.name;
    report.step = step_;
    report.steps = steps_;
  }
  report.jobs = jobs_;
  report.hangs = hangs_;
  return report;
}

}  // namespace limner::worker
