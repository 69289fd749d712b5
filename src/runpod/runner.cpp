#include "runpod/runner.h"

#include <fmt/format.h>

#include <algorithm>

namespace limner::runpod {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::string error_text(const Error& error, const PlatformSettings& settings) {
  const json object = {{"error_type", name(error.code)},  {"error_message", error.message},
                       {"retryable", error.retryable},    {"hostname", settings.hostname},
                       {"worker_id", settings.worker_id}, {"limner_version", LIMNER_VERSION}};
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

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
  for (std::size_t index = 0; index < options_.concurrency; ++index) {
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
}

bool Runner::finished() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

bool Runner::drain(milliseconds at_most) {
  for (std::jthread& thread : asking_) thread.request_stop();
  {
    std::unique_lock lock(mutex_);
    changed_.notify_all();
    // Jobs may still be on their way in with an answer of the platform; who asks ends soon.
    lock.unlock();
    if (!asking_.empty()) asking_.front().join();
    lock.lock();
    changed_.wait_for(lock, at_most, [&] { return jobs_.empty(); });
    over_ = true;
    for (const auto& [id, job] : jobs_) job->stop.request_stop();
    changed_.wait(lock, [&] { return jobs_.empty() || drawing_.empty(); });
  }
  asking_.clear();
  drawing_.clear();
  const bool delivered = outbox_.wait_until_empty(at_most);
  pinging_ = {};
  return delivered;
}

void Runner::pause(std::stop_token stop, milliseconds wait) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, stop, wait, [&] { return stop.stop_requested(); });
}

// ---- what comes in

std::size_t Runner::wait_for_slots(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  const auto open_slots = [&] {
    return !finished_ && jobs_.size() < options_.concurrency ? options_.concurrency - jobs_.size()
                                                             : 0;
  };
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
    bool in_progress = false;
    {
      const std::lock_guard lock(mutex_);
      in_progress = !jobs_.empty();
    }
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

void Runner::accept(TakenJob taken) {
  if (taken.wrong) return send_error(taken.id, *taken.wrong);
  const auto undelivered = outbox_.undelivered();
  const bool answered =
      std::find(undelivered.begin(), undelivered.end(), taken.id) != undelivered.end();
  const std::lock_guard lock(mutex_);
  if (answered || jobs_.contains(taken.id)) {
    log_.warning("the platform sent a job that is here already", {{"request_id", taken.id}});
    return;
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
      job->running = true;
    }
    draw(job);
  }
}

void Runner::draw(const JobPointer& job) {
  const std::string& id = job->taken.id;
  DrawerHooks hooks;
  hooks.progress = [&](const json& progress) {
    const auto now = steady_clock::now();
    if (now - job->told_at < options_.progress_every) return;
    job->told_at = now;
    outbox_.progress(id, progress);
  };
  if (!plane_.settings().post_stream.empty()) {
    hooks.partial = [&](const json& partial) { outbox_.partial(id, partial); };
  }
  const auto began = steady_clock::now();
  Result<Drawn> drawn = Error{ErrorCode::kCancelled, "the job was stopped"};
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
  const bool canceled = job->canceled, over = over_;
  if (options_.refresh_worker && !canceled) finished_ = true;
  lock.unlock();
  if (canceled) {
    // The platform knows; a result would make the job look completed.
  } else if (drawn.ok()) {
    json body = {{"output", drawn->output}};
    if (options_.refresh_worker) body["stopPod"] = true;
    outbox_.result(id, body, drawn->streamed);
  } else if (over && drawn.error().code == ErrorCode::kCancelled) {
    send_error(id, {ErrorCode::kUnavailable,
                    "the worker was shut down before the job was finished; send it again", true});
  } else {
    log_.warning("a job failed", {{"request_id", id}, {"error", drawn.error().message}});
    send_error(id, drawn.error());
  }
  lock.lock();
  jobs_.erase(id);
  changed_.notify_all();
}

void Runner::send_error(const std::string& job, const Error& error) {
  json body = {{"error", error_text(error, plane_.settings())}};
  if (options_.refresh_worker) body["stopPod"] = true;
  outbox_.result(job, body, false);
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
  const std::lock_guard lock(mutex_);
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return;
  found->second->canceled = true;
  found->second->stop.request_stop();
  log_.info("a job is stopped for its client", {{"request_id", id}});
}

}  // namespace limner::runpod
