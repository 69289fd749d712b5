#include "runpod/runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "platform/clock.h"
#include "runpod/job_error.h"

namespace limner::runpod {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

Result<Drawn> stopped() {
  return Error{ErrorCode::kCancelled, "the job was stopped"};
}

double seconds(milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

Runner::Runner(RunnerOptions options, ControlPlane& plane, JobDrawer& drawer, Log& log)
    : options_(options),
      plane_(plane),
      drawer_(drawer),
      log_(log),
      outbox_(plane, options.outbox, log) {}

Runner::~Runner() {
  drain(milliseconds(0));
}

void Runner::start() {
  for (std::size_t i = 0; i < options_.concurrency + options_.most_uploading; ++i) {
    drawing_.emplace_back([this](std::stop_token stop) { draw_jobs(std::move(stop)); });
  }
  if (plane_.has_heartbeat()) {
    pinging_ = std::jthread([this](std::stop_token stop) { send_pings(std::move(stop)); });
  } else {
    log_.warning(
        "no heartbeat: RUNPOD_WEBHOOK_PING, RUNPOD_POD_ID or RUNPOD_AI_API_KEY is not set");
  }
  asking_.emplace_back([this](std::stop_token stop) { take_jobs(std::move(stop)); });
  if (plane_.can_stop_jobs()) {
    asking_.emplace_back([this](std::stop_token stop) { stop_jobs(std::move(stop)); });
  }
  watching_ = std::jthread([this](std::stop_token stop) { watch(std::move(stop)); });
}

bool Runner::finished() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

bool Runner::left_behind() const {
  const std::lock_guard lock(mutex_);
  return hanging_ > 0;
}

bool Runner::drain(milliseconds at_most) {
  for (std::jthread& thread : asking_) thread.request_stop();
  // Jobs may still be on their way in with an answer of the platform; who asks ends soon.
  if (!asking_.empty() && asking_.front().joinable()) asking_.front().join();
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, at_most, [&] { return jobs_.empty(); });
  }
  stop_all();
  asking_.clear();
  watching_ = {};
  if (!left_behind()) drawing_.clear();
  const bool delivered = outbox_.wait_until_empty(at_most);
  pinging_ = {};
  if (!unhealthy_.empty()) plane_.report_unhealthy("drawing", std::exchange(unhealthy_, {}));
  return delivered;
}

void Runner::stop_all() {
  std::deque<JobPointer> waiting;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    std::swap(waiting, waiting_);
    for (const auto& [id, job] : jobs_) job->stop.request_stop();
  }
  for (const JobPointer& job : waiting) answer(job, stopped());
  std::vector<JobPointer> hanging;
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, options_.stop_grace, [&] { return jobs_.empty(); });
    for (const auto& [id, job] : jobs_) hanging.push_back(job);
  }
  for (const JobPointer& job : hanging) {
    give_up(job, fmt::format("the drawing did not end within {} s", seconds(options_.stop_grace)));
  }
}

void Runner::pause(std::stop_token stop, milliseconds wait) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, stop, wait, [&] { return stop.stop_requested(); });
}

// ---- what comes in

std::size_t Runner::open_slots() const {
  const auto uploading = static_cast<std::size_t>(
      std::ranges::count_if(jobs_, [](const auto& entry) { return entry.second->uploading; }));
  const std::size_t most = options_.concurrency + std::min(uploading, options_.most_uploading);
  return finished_ || jobs_.size() >= most ? 0 : most - jobs_.size();
}

std::size_t Runner::wait_for_slots(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, stop, options_.look_every, [&] { return open_slots() > 0; });
  return stop.stop_requested() ? 0 : open_slots();
}

void Runner::take_jobs(std::stop_token stop) {
  while (!stop.stop_requested()) {
    const std::size_t slots = wait_for_slots(stop);
    if (slots == 0) continue;
    if (outbox_.undelivered().size() >= options_.most_undelivered) {
      pause(stop, options_.look_every);
      continue;
    }
    const bool in_progress = begin_poll();
    auto taken = plane_.take(slots, in_progress, stop);
    if (taken.ok()) {
      for (TakenJob& job : taken->jobs) accept(std::move(job));
      if (taken->problem) log_.error("a job was lost", {{"error", taken->problem->message}});
      if (taken->wait.count() > 0) pause(stop, taken->wait);
      continue;
    }
    const Error& error = taken.error();
    if (error.code == ErrorCode::kDeadlineExceeded || stop.stop_requested()) continue;
    log_.error("no job could be taken", {{"error", error.message}});
    pause(stop, plane_.waits().failed);
  }
}

bool Runner::begin_poll() {
  const auto undelivered = outbox_.undelivered();
  const std::lock_guard lock(mutex_);
  std::erase_if(not_wanted_,
                [&](const std::string& id) { return std::ranges::count(undelivered, id) == 0; });
  return !jobs_.empty();
}

void Runner::accept(TakenJob taken) {
  const auto undelivered = outbox_.undelivered();
  std::unique_lock lock(mutex_);
  if (std::ranges::count(undelivered, taken.id) > 0 || jobs_.contains(taken.id) ||
      not_wanted_.contains(taken.id)) {
    log_.warning("the platform sent a job that is here already or is not wanted any more",
                 {{"request_id", taken.id}});
    return;
  }
  if (taken.wrong) {
    lock.unlock();
    return send_error(taken.id, *taken.wrong, {.stops_pod = options_.refresh_worker});
  }
  auto job = std::make_shared<Job>();
  job->taken = std::move(taken);
  jobs_[job->taken.id] = job;
  waiting_.push_back(job);
  changed_.notify_all();
  log_.info("a job was taken", {{"request_id", job->taken.id}});
}

// ---- drawing

void Runner::draw_jobs(std::stop_token stop) {
  while (true) {
    JobPointer job;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return !waiting_.empty(); })) return;
      job = std::move(waiting_.front());
      waiting_.pop_front();
    }
    draw(job);
  }
}

bool Runner::ended(const JobPointer& job) const {
  const std::lock_guard lock(mutex_);
  return job->ended;
}

void Runner::draw(const JobPointer& job) {
  const std::string& id = job->taken.id;
  DrawerHooks hooks;
  hooks.pulse = &job->pulse;
  hooks.at = options_.at;
  hooks.progress = [&](const json& progress) {
    const auto now = steady_clock::now();
    if (now - job->told_at < options_.progress_every || ended(job)) return;
    job->told_at = now;
    outbox_.progress(id, progress);
  };
  if (!plane_.settings().post_stream.empty()) {
    hooks.partial = [&](const json& partial) {
      std::unique_lock lock(mutex_);
      if (job->ended) return;
      job->streamed = true;
      lock.unlock();
      outbox_.partial(id, partial);
    };
  }
  // The first job of a worker that is refreshed is its only one.
  if (!options_.refresh_worker) {
    hooks.uploading = [&] {
      const std::lock_guard lock(mutex_);
      job->uploading = true;
      changed_.notify_all();
    };
  }
  const auto began = steady_clock::now();
  Result<Drawn> drawn = stopped();
  if (!job->stop.stop_requested()) {
    drawn = drawer_.draw(id, job->taken.input, hooks, job->stop.get_token());
  }
  const std::chrono::duration<double> took = steady_clock::now() - began;
  log_.info("a job ended", {{"request_id", id},
                            {"outcome", drawn.ok() ? "completed" : name(drawn.error().code)},
                            {"seconds", took.count()}});
  answer(job, drawn);
}

void Runner::answer(const JobPointer& job, const Result<Drawn>& drawn) {
  const std::string& id = job->taken.id;
  std::unique_lock lock(mutex_);
  if (job->ended) {
    --hanging_;
    return changed_.notify_all();
  }
  job->ended = true;
  const bool canceled = job->canceled, over = over_;
  const Manner manner{job->streamed, options_.refresh_worker};
  if (options_.refresh_worker && !canceled) finished_ = true;
  lock.unlock();
  if (canceled) {
    // The platform knows; a result would make the job look completed.
  } else if (drawn.ok()) {
    json body = {{"output", drawn->output}};
    if (options_.refresh_worker) body["stopPod"] = true;
    outbox_.result(id, body, drawn->streamed);
  } else if (over && drawn.error().code == ErrorCode::kCancelled) {
    send_error(id,
               {ErrorCode::kUnavailable,
                "the worker was shut down before the job was finished; send it again", true},
               manner);
  } else {
    log_.warning("a job failed", {{"request_id", id}, {"error", drawn.error().message}});
    send_error(id, drawn.error(), manner);
  }
  lock.lock();
  jobs_.erase(id);
  if (drawn.ok() && !canceled) not_wanted_.insert(id);
  changed_.notify_all();
}

void Runner::send_error(const std::string& job, const Error& error, Manner manner) {
  json body = {{"error", error_text(error, plane_.settings(), drawer_.state(),
                                    platform::SystemClock().wall())}};
  if (manner.stops_pod) body["stopPod"] = true;
  outbox_.result(job, body, manner.streamed);
}

// ---- a thread that hangs

void Runner::watch(std::stop_token stop) {
  while (!stop.stop_requested()) {
    pause(stop, options_.look_every);
    const auto now = steady_clock::now();
    std::vector<std::pair<JobPointer, milliseconds>> silent;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [id, job] : jobs_) {
        const worker::Pulse::Beat beat = job->pulse.read();
        if (beat.limit.count() == 0 || beat.number != job->seen_beat) {
          job->seen_beat = beat.number;
          job->seen_since = now;
        } else if (now - job->seen_since > beat.limit) {
          silent.emplace_back(job, std::chrono::duration_cast<milliseconds>(now - job->seen_since));
        }
      }
    }
    for (const auto& [job, time] : silent) {
      give_up(job, fmt::format("the drawing gave no sign of life for {} s", seconds(time)));
    }
  }
}

void Runner::give_up(const JobPointer& job, const std::string& why) {
  const std::string& id = job->taken.id;
  bool canceled = false, streamed = false;
  {
    const std::lock_guard lock(mutex_);
    if (job->ended) return;  // it came back just now
    job->ended = true;
    canceled = job->canceled;
    streamed = job->streamed;
    ++hanging_;
    finished_ = true;
    unhealthy_ = why;
  }
  log_.error("a drawing hangs and is given up", {{"request_id", id}, {"error", why}});
  if (!canceled) {
    send_error(id, {ErrorCode::kUnavailable, why + "; the worker is replaced, send it again", true},
               {.streamed = streamed, .stops_pod = true});
  }
  const std::lock_guard lock(mutex_);
  jobs_.erase(id);
  changed_.notify_all();
}

// ---- beside it

void Runner::send_pings(std::stop_token stop) {
  bool heard = true;
  while (!stop.stop_requested()) {
    std::vector<std::string> ids = outbox_.undelivered();
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [id, job] : jobs_) ids.push_back(id);
    }
    const bool now = plane_.ping(ids, stop);
    if (!now && heard && !stop.stop_requested()) {
      log_.warning("the platform does not hear the heartbeat");
    }
    heard = now;
    pause(stop, plane_.settings().ping_interval);
  }
}

void Runner::stop_jobs(std::stop_token stop) {
  while (!stop.stop_requested()) {
    const auto found = plane_.jobs_to_stop(stop);
    if (found.ok()) {
      for (const std::string& id : found->jobs) cancel(id);
      if (found->wait.count() > 0) pause(stop, found->wait);
    } else if (found.error().code != ErrorCode::kDeadlineExceeded && !stop.stop_requested()) {
      log_.warning("jobs to stop could not be asked for", {{"error", found.error().message}});
      pause(stop, plane_.waits().failed);
    }
  }
}

void Runner::cancel(const std::string& id) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = jobs_.find(id);
    if (found == jobs_.end()) {
      not_wanted_.insert(id);  // it may be on its way in
    } else {
      found->second->canceled = true;
      found->second->stop.request_stop();
    }
  }
  outbox_.withdraw(id);
  log_.info("a job is stopped for its client", {{"request_id", id}});
}

}  // namespace limner::runpod
