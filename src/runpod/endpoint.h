// Endpoint: a RunPod endpoint held in memory: its queue and its jobs, as clients and as workers see
// them (docs.runpod.io, serverless/endpoints). For trying a worker where there is no platform.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "platform/clock.h"
#include "platform/http/download.h"

namespace limner::runpod {

// What a client asks /run and /runsync for.
struct RunRequest {
  nlohmann::json input{};
  std::string webhook{};                        // "": nobody is told of the end
  nlohmann::json s3_config{};                   // null, or an object that the worker gets as it is
  platform::Millis execution_timeout{600'000};  // since a worker has it
  platform::Millis ttl{86'400'000};  // since it was queued; then it is forgotten, running or not
};

// From {"input", "webhook", "policy": {"executionTimeout", "ttl", "lowPriority"}, "s3Config"}.
// lowPriority keeps the platform from starting workers for a job; there are none to start here.
// Errors: kInvalidArgument naming every wrong member. `webhooks`: whom they may reach.
Result<RunRequest> read_run_request(const nlohmann::json& body,
                                    const platform::http::NetworkRules& webhooks);

// As the platform writes them: "sync-" begins those of /runsync.
std::string new_job_id(bool sync);

// A status object on its way to the URL that its client gave.
struct ClientWebhook {
  std::string url{}, body{};
  int tries = 0;
  platform::Millis due{};
};

struct EndpointOptions {
  platform::Millis keep_run{30 * 60'000}, keep_sync{60'000};  // a job that has ended
  int webhook_tries = 3;
  platform::Millis webhook_wait{10'000};  // between two of them
  // Told after every call that has changed something, on the thread of that call.
  std::function<void()> changed{};
};

// Any thread may call. What is due by itself (time limits, forgetting) is done by the next call of
// whatever kind; next_due() says when one is wanted.
class Endpoint {
 public:
  // `clock` must outlive this.
  Endpoint(EndpointOptions options, const platform::Clock& clock);

  // For clients. Errors, where a job is named: kNotFound when it is not known, or no more.
  std::string submit(RunRequest request, bool sync);  // the new job's id
  // {id, status, delayTime?, executionTime?, output?, error?}, times in ms. `keep`: an ended job is
  // forgotten after so long, counted from now.
  Result<nlohmann::json> status(const std::string& id, std::optional<platform::Millis> keep = {});
  Result<bool> ended(const std::string& id);
  // {status, stream: [{output}]}: the partial outputs that nobody has fetched yet.
  Result<nlohmann::json> stream(const std::string& id);
  Result<nlohmann::json> cancel(const std::string& id);  // {id, status}; an ended job stays so
  // {id, status}. kInvalidArgument unless FAILED or TIMED_OUT.
  Result<nlohmann::json> retry(const std::string& id);
  nlohmann::json purge_queue();  // {removed, status}; jobs that run stay
  nlohmann::json health();

  // For workers, by their names. A job is {id, input, webhook?, s3Config?}.
  std::vector<nlohmann::json> take(const std::string& worker, std::size_t most);
  std::vector<std::string> jobs_to_stop(const std::string& worker);  // each is told of once
  // A result {output} or {error}, or progress {status: "IN_PROGRESS", output}. What comes when the
  // job has ended, or from a worker that does not have it, changes nothing. Errors: kNotFound;
  // kInvalidArgument when `body` is no object.
  Result<void> done(const std::string& worker, const std::string& id, const nlohmann::json& body);
  Result<void> partial(const std::string& worker, const std::string& id,
                       const nlohmann::json& body);
  void ping(const std::string& worker, bool healthy);

  std::vector<ClientWebhook> take_webhooks();  // those that are due
  void put_back(ClientWebhook failed);         // to be tried again, or given up
  // When take_webhooks() is worth a call again.
  std::optional<platform::Millis> next_webhook();
  std::optional<platform::Millis> next_due();

 private:
  enum class State { kQueued, kRunning, kCompleted, kFailed, kCancelled, kTimedOut };
  struct Job {
    std::string id{};
    RunRequest request{};
    bool sync = false;
    State state = State::kQueued;
    nlohmann::json output{};  // of the result, or the latest progress; null: none
    nlohmann::json error{};
    std::vector<nlohmann::json> partials{};
    std::string worker{};
    platform::Millis queued{}, ended{};
    std::optional<platform::Millis> taken{};
    platform::Millis due{};  // when something happens to it by itself; its place in due_
  };
  class Turn;

  static std::string_view name(State state);
  static bool is_final(State state);
  Result<Job*> find(const std::string& id);
  nlohmann::json shown(const Job& job) const;
  void set_due(Job& job, platform::Millis due);
  void end(Job& job, State state);
  void cancel(Job& job);
  void forget(Job& job);
  void expire();

  const EndpointOptions options_;
  const platform::Clock& clock_;
  std::mutex mutex_;
  std::map<std::string, Job> jobs_;  // by mutex_, like all below
  std::deque<std::string> queue_;
  std::set<std::pair<platform::Millis, std::string>> due_;
  std::map<std::string, std::vector<std::string>> stops_;  // by worker
  std::map<std::string, bool> workers_;                    // heard of: whether it is healthy
  std::vector<ClientWebhook> webhooks_;
  std::int64_t completed_ = 0, failed_ = 0, retried_ = 0;  // ever
  bool changed_ = false;                                   // in this turn
};

}  // namespace limner::runpod
