// Job and JobEvent: the unit a worker runs, and what is told about it. Plain data.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::contract {

enum class Tier : std::uint8_t { kTurbo, kFast, kRelax };
inline constexpr std::size_t kTierCount = 3;
inline constexpr std::array<Tier, kTierCount> kTiers = {Tier::kTurbo, Tier::kFast, Tier::kRelax};

enum class JobStatus : std::uint8_t {
  kQueued,   // waits for a worker, or for the end of a back-off
  kRunning,  // a worker holds its lease
  // The rest are terminal: a job enters one of them once.
  kCompleted,
  kBlocked,  // refused by a safety rule
  kFailed,
  kCanceled,
  kExpired,  // was not started in time
};

constexpr bool is_terminal(JobStatus status) {
  return status >= JobStatus::kCompleted;
}

// The names of the HTTP API: "turbo", "queued".
std::string_view name(Tier tier);
std::string_view name(JobStatus status);
std::optional<Tier> tier_named(std::string_view name);
std::optional<JobStatus> status_named(std::string_view name);

// Times are milliseconds since 1970 (UTC); 0 where nothing has happened yet.
struct Job {
  std::int64_t sequence = 0;  // order of acceptance; given by the queue
  std::string id{};           // given by the queue where empty
  std::string account{};
  std::string key_id{};  // of the API key that asked
  Tier tier = Tier::kRelax;
  std::int32_t priority = 0;  // inside an account; higher runs earlier
  std::string model{};        // what a worker has to hold; jobs are steered to workers that do
  std::string job_class{};    // jobs of one class take the same time per unit of work
  double work = 1.0;          // in the class's own unit, e.g. pixels x steps x images; > 0
  std::string request{};      // as the front wrote it; the queue never reads it

  JobStatus status = JobStatus::kQueued;
  std::int32_t attempt = 0;   // leases given so far; the last one is the one that counts
  std::int32_t crashes = 0;   // attempts whose worker vanished
  std::int32_t failures = 0;  // attempts that ended in a retryable error
  bool cancel_requested = false;
  bool dead_letter = false;  // failed because its workers kept vanishing
  std::string worker{};      // who holds, or held, the last lease
  std::int64_t created_at = 0;
  std::int64_t queued_at = 0;   // the last time: accepted, handed back, or to be tried again
  std::int64_t not_before = 0;  // end of the back-off
  std::int64_t expires_at = 0;  // 0: never
  std::int64_t started_at = 0;
  std::int64_t finished_at = 0;
  std::int64_t last_event = 0;   // id of its newest durable event
  std::string result{};          // of a completed or blocked job, as the worker wrote it
  std::optional<Error> error{};  // of a failed one
};

// Ids grow within a job and are never given twice, so that a reader who shows the last id it saw is
// told the rest exactly once. `progress` and `preview` live as long as the process, the others as
// long as the job.
struct JobEvent {
  std::string job_id{};
  std::int64_t id = 0;
  std::string type{};  // "status", "progress", "preview", "image", or the terminal status' name
  std::string data{};  // as its maker wrote it
  std::int64_t at = 0;
};

// What a finished attempt cost; written in the transaction that finishes the job.
struct Usage {
  std::int64_t images = 0;
  std::int64_t steps = 0;
  std::int64_t pixels = 0;
  double seconds = 0.0;  // that the worker was busy with it
};

}  // namespace limner::contract
