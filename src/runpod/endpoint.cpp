#include "runpod/endpoint.h"

#include <fmt/format.h>

#include <algorithm>

namespace limner::runpod {

using nlohmann::json;
using platform::Millis;

// One call: under the mutex, after what had become due, and what it changed is told when the mutex
// is free again.
class Endpoint::Turn {
 public:
  explicit Turn(Endpoint& endpoint) : endpoint_(endpoint), lock_(endpoint.mutex_) {
    endpoint_.expire();
  }
  ~Turn() {
    const bool changed = std::exchange(endpoint_.changed_, false);
    lock_.unlock();
    if (changed && endpoint_.options_.changed) endpoint_.options_.changed();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  Endpoint& endpoint_;
  std::unique_lock<std::mutex> lock_;
};

Endpoint::Endpoint(EndpointOptions options, const platform::Clock& clock)
    : options_(std::move(options)), clock_(clock) {}

std::string_view Endpoint::name(State state) {
  switch (state) {
    case State::kQueued:
      return "IN_QUEUE";
    case State::kRunning:
      return "IN_PROGRESS";
    case State::kCompleted:
      return "COMPLETED";
    case State::kFailed:
      return "FAILED";
    case State::kCancelled:
      return "CANCELLED";
    case State::kTimedOut:
      return "TIMED_OUT";
  }
  return "FAILED";
}

bool Endpoint::is_final(State state) {
  return state != State::kQueued && state != State::kRunning;
}

Result<Endpoint::Job*> Endpoint::find(const std::string& id) {
  const auto found = jobs_.find(id);
  if (found != jobs_.end()) return &found->second;
  return Error{ErrorCode::kNotFound,
               fmt::format("there is no job '{}', or it is forgotten already", id.substr(0, 100))};
}

json Endpoint::shown(const Job& job) const {
  json object = {{"id", job.id}, {"status", name(job.state)}};
  if (job.taken) object["delayTime"] = (*job.taken - job.queued).count();
  if (job.taken && is_final(job.state)) {
    object["executionTime"] = (job.ended - *job.taken).count();
  }
  if (!job.output.is_null()) object["output"] = job.output;
  if (!job.error.is_null()) object["error"] = job.error;
  return object;
}

// ---- clients

std::string Endpoint::submit(RunRequest request, bool sync) {
  const Turn turn(*this);
  const std::string id = new_job_id(sync);
  Job& job = jobs_[id];
  job.id = id;
  job.request = std::move(request);
  job.sync = sync;
  job.queued = clock_.now();
  set_due(job, job.queued + job.request.ttl);
  queue_.push_back(id);
  changed_ = true;
  return id;
}

Result<json> Endpoint::status(const std::string& id, std::optional<Millis> keep) {
  const Turn turn(*this);
  const auto job = find(id);
  if (!job.ok()) return job.error();
  if (keep && is_final((*job)->state)) set_due(**job, clock_.now() + *keep);
  return shown(**job);
}

Result<bool> Endpoint::ended(const std::string& id) {
  const Turn turn(*this);
  const auto job = find(id);
  if (!job.ok()) return job.error();
  return is_final((*job)->state);
}

Result<json> Endpoint::stream(const std::string& id) {
  const Turn turn(*this);
  const auto job = find(id);
  if (!job.ok()) return job.error();
  json list = json::array();
  for (json& partial : (*job)->partials) list.push_back({{"output", std::move(partial)}});
  (*job)->partials.clear();
  return json{{"status", name((*job)->state)}, {"stream", std::move(list)}};
}

Result<json> Endpoint::cancel(const std::string& id) {
  const Turn turn(*this);
  const auto job = find(id);
  if (!job.ok()) return job.error();
  cancel(**job);
  return json{{"id", id}, {"status", name((*job)->state)}};
}

Result<json> Endpoint::retry(const std::string& id) {
  const Turn turn(*this);
  const auto found = find(id);
  if (!found.ok()) return found.error();
  Job& job = **found;
  if (job.state != State::kFailed && job.state != State::kTimedOut) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("job {} is {}; only a job that is FAILED or TIMED_OUT can be retried",
                             id, name(job.state))};
  }
  job.state = State::kQueued;
  job.output = job.error = nullptr;
  job.partials.clear();
  job.taken.reset();
  job.queued = clock_.now();
  set_due(job, job.queued + job.request.ttl);
  queue_.push_back(id);
  ++retried_;
  changed_ = true;
  return json{{"id", id}, {"status", name(job.state)}};
}

json Endpoint::purge_queue() {
  const Turn turn(*this);
  const std::deque<std::string> waiting = queue_;
  for (const std::string& id : waiting) cancel(jobs_.at(id));
  return {{"removed", waiting.size()}, {"status", "completed"}};
}

json Endpoint::health() {
  const Turn turn(*this);
  std::set<std::string> busy;
  std::int64_t running = 0;
  for (const auto& [id, job] : jobs_) {
    if (job.state != State::kRunning) continue;
    ++running;
    busy.insert(job.worker);
  }
  std::int64_t idle = 0, unhealthy = 0;
  for (const auto& [worker, healthy] : workers_) {
    unhealthy += healthy ? 0 : 1;
    idle += healthy && !busy.contains(worker) ? 1 : 0;
  }
  return {{"jobs",
           {{"completed", completed_},
            {"failed", failed_},
            {"inProgress", running},
            {"inQueue", queue_.size()},
            {"retried", retried_}}},
          {"workers",
           {{"idle", idle},
            {"initializing", workers_.empty() ? 1 : 0},
            {"ready", idle},
            {"running", busy.size()},
            {"throttled", 0},
            {"unhealthy", unhealthy}}}};
}

// ---- workers

std::vector<json> Endpoint::take(const std::string& worker, std::size_t most) {
  const Turn turn(*this);
  workers_[worker] = true;
  std::vector<json> taken;
  while (!queue_.empty() && taken.size() < most) {
    Job& job = jobs_.at(queue_.front());
    queue_.pop_front();
    job.state = State::kRunning;
    job.worker = worker;
    job.taken = clock_.now();
    set_due(job,
            std::min(*job.taken + job.request.execution_timeout, job.queued + job.request.ttl));
    json given = {{"id", job.id}, {"input", job.request.input}};
    if (!job.request.webhook.empty()) given["webhook"] = job.request.webhook;
    if (!job.request.s3_config.is_null()) given["s3Config"] = job.request.s3_config;
    taken.push_back(std::move(given));
    changed_ = true;
  }
  return taken;
}

std::vector<std::string> Endpoint::jobs_to_stop(const std::string& worker) {
  const Turn turn(*this);
  return std::exchange(stops_[worker], {});
}

Result<void> Endpoint::done(const std::string& worker, const std::string& id, const json& body) {
  const Turn turn(*this);
  const auto found = find(id);
  if (!found.ok()) return found.error();
  if (!body.is_object()) return Error{ErrorCode::kInvalidArgument, "a result must be an object"};
  Job& job = **found;
  if (job.state != State::kRunning || job.worker != worker) return {};
  job.output = body.value("output", json());
  if (body.value("status", json()) == name(State::kRunning)) return {};
  job.error = body.value("error", json());
  end(job, job.error.is_null() ? State::kCompleted : State::kFailed);
  return {};
}

Result<void> Endpoint::partial(const std::string& worker, const std::string& id, const json& body) {
  const Turn turn(*this);
  const auto found = find(id);
  if (!found.ok()) return found.error();
  if (!body.is_object() || !body.contains("output")) {
    return Error{ErrorCode::kInvalidArgument, "a partial output must be {\"output\": ...}"};
  }
  Job& job = **found;
  if (job.state == State::kRunning && job.worker == worker) job.partials.push_back(body["output"]);
  return {};
}

void Endpoint::ping(const std::string& worker, bool healthy) {
  const Turn turn(*this);
  workers_[worker] = healthy;
}

// ---- webhooks

std::vector<ClientWebhook> Endpoint::take_webhooks() {
  const Turn turn(*this);
  const Millis now = clock_.now();
  const auto later = std::stable_partition(webhooks_.begin(), webhooks_.end(),
                                           [&](const auto& webhook) { return webhook.due <= now; });
  std::vector<ClientWebhook> due(std::make_move_iterator(webhooks_.begin()),
                                 std::make_move_iterator(later));
  webhooks_.erase(webhooks_.begin(), later);
  return due;
}

void Endpoint::put_back(ClientWebhook failed) {
  const Turn turn(*this);
  if (++failed.tries >= options_.webhook_tries) return;
  failed.due = clock_.now() + options_.webhook_wait;
  webhooks_.push_back(std::move(failed));
  changed_ = true;
}

std::optional<Millis> Endpoint::next_webhook() {
  const Turn turn(*this);
  std::optional<Millis> next;
  for (const ClientWebhook& webhook : webhooks_) {
    next = std::min(next.value_or(webhook.due), webhook.due);
  }
  return next;
}

// ---- a job's way

std::optional<Millis> Endpoint::next_due() {
  const Turn turn(*this);
  if (due_.empty()) return std::nullopt;
  return due_.begin()->first;
}

void Endpoint::set_due(Job& job, Millis due) {
  due_.erase({job.due, job.id});
  job.due = due;
  due_.insert({due, job.id});
}

void Endpoint::end(Job& job, State state) {
  job.state = state;
  job.ended = clock_.now();
  set_due(job, std::min(job.ended + (job.sync ? options_.keep_sync : options_.keep_run),
                        job.queued + job.request.ttl));
  completed_ += state == State::kCompleted ? 1 : 0;
  failed_ += state == State::kFailed || state == State::kTimedOut ? 1 : 0;
  if (!job.request.webhook.empty()) {
    webhooks_.push_back({job.request.webhook, shown(job).dump(), 0, job.ended});
  }
  changed_ = true;
}

void Endpoint::cancel(Job& job) {
  if (is_final(job.state)) return;
  if (job.state == State::kQueued) {
    std::erase(queue_, job.id);
  } else {
    stops_[job.worker].push_back(job.id);
  }
  end(job, State::kCancelled);
}

void Endpoint::forget(Job& job) {
  if (job.state == State::kQueued) std::erase(queue_, job.id);
  if (job.state == State::kRunning) stops_[job.worker].push_back(job.id);
  const std::string id = job.id;
  due_.erase({job.due, id});
  jobs_.erase(id);
  changed_ = true;
}

void Endpoint::expire() {
  const Millis now = clock_.now();
  while (!due_.empty() && due_.begin()->first <= now) {
    Job& job = jobs_.at(due_.begin()->second);
    if (job.state != State::kRunning || job.queued + job.request.ttl <= now) {
      forget(job);
      continue;
    }
    stops_[job.worker].push_back(job.id);
    job.error = fmt::format("the job ran longer than its executionTimeout of {} ms",
                            job.request.execution_timeout.count());
    end(job, State::kTimedOut);
  }
}

}  // namespace limner::runpod
