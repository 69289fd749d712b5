// ControlPlane: the calls that a serverless worker makes to RunPod, as runpod-python 1.12.0 makes
// them.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "platform/http/exchange.h"

namespace limner::runpod {

using Environment = std::map<std::string, std::string>;

// What the platform tells a worker in its environment. URLs are templates of its own, with a query.
struct PlatformSettings {
  std::string get_job{};                     // RUNPOD_WEBHOOK_GET_JOB; "": no queue to take from
  std::string post_output{}, post_stream{};  // "": not told
  std::string ping{};                        // "": no heartbeat
  std::chrono::milliseconds ping_interval{10000};  // RUNPOD_PING_INTERVAL, whole seconds of it
  std::string api_key{};                           // RUNPOD_AI_API_KEY; "": no heartbeat
  std::string worker_id{};                         // RUNPOD_POD_ID, else a random one
  bool named = false;                              // RUNPOD_POD_ID is set; otherwise no heartbeat
  std::string hostname = "unknown";                // RUNPOD_POD_HOSTNAME
  bool endpoint = false;                           // RUNPOD_ENDPOINT_ID is set: logs are JSON lines
};
// Errors: kInvalidArgument naming the variable.
Result<PlatformSettings> read_settings(const Environment& environment);

// How long the worker waits; the platform's own numbers.
struct Waits {
  std::chrono::milliseconds poll{90'000};    // of a long poll, then it asks again
  std::chrono::milliseconds busy{5'000};     // after a 429
  std::chrono::milliseconds failed{1'000};   // after any other failure of a poll
  std::chrono::milliseconds answer{60'000};  // for a result to be taken
};

struct TakenJob {
  std::string id{};
  nlohmann::json input{};      // of any kind
  std::optional<Error> wrong;  // why the job cannot be looked at: it has no input
};

// What one poll brought, and how long to wait before the next.
struct Taken {
  std::vector<TakenJob> jobs{};
  std::chrono::milliseconds wait{0};
  std::optional<Error> problem{};  // what else of a batch could not be read
};
struct ToStop {
  std::vector<std::string> jobs{};
  std::chrono::milliseconds wait{0};
};

enum class Delivery {
  kDelivered,
  kGone,     // the platform has no such job any more (404, 410)
  kRefused,  // this text will not be taken (a 4xx that is not about the key or the hour)
  kLater,    // trying again may help
};

// Safe to call from many threads; every call blocks, for its wait at most.
class ControlPlane {
 public:
  // `exchange` must outlive this; a long poll is silent for a minute and a half, so its rules must
  // not call that stalled.
  ControlPlane(PlatformSettings settings, Waits waits, platform::http::Exchange& exchange);

  // One long poll. 200: an object, or an array where more than one slot is free; 204 and 400 (which
  // FlashBoot answers) bring nothing; nor does an answer that is no JSON. 429 asks to wait. Errors:
  // as Exchange::send (kDeadlineExceeded: nothing came), kUnavailable for any other status,
  // kInvalidArgument for a job without an id.
  Result<Taken> take(std::size_t free_slots, bool in_progress, std::stop_token stop);

  // {"output": ...}, {"error": "..."}, {"stopPod": true}. `streamed`: parts were sent before.
  // Stopped, as all of these may be: kLater.
  Delivery send_result(const std::string& job, const std::string& body, bool streamed,
                       std::stop_token stop = {});
  Delivery send_partial(const std::string& job, const std::string& body, std::stop_token stop = {});
  // The client sees it as the output of a job that is IN_PROGRESS.
  Delivery send_progress(const std::string& job, const nlohmann::json& progress,
                         std::stop_token stop = {});

  bool has_heartbeat() const;
  // Tries again where that may help; false: it was not heard.
  bool ping(const std::vector<std::string>& jobs, std::stop_token stop);
  // Why this worker takes no jobs at all.
  void report_unhealthy(const std::string& check, const std::string& reason);

  bool can_stop_jobs() const;  // the take URL has the segment that stands for it
  // One long poll for the jobs that clients have cancelled. Errors: as take().
  Result<ToStop> jobs_to_stop(std::stop_token stop);

  const PlatformSettings& settings() const { return settings_; }
  const Waits& waits() const { return waits_; }

 private:
  Result<platform::http::Reply> get(const std::string& url, std::chrono::milliseconds timeout,
                                    std::stop_token stop);
  Delivery post(const std::string& url, const std::string& job, const std::string& body,
                std::stop_token stop);
  std::vector<std::string> headers() const;
  std::string ping_url(const std::string& query) const;

  const PlatformSettings settings_;
  const Waits waits_;
  platform::http::Exchange& exchange_;
};

}  // namespace limner::runpod
