// Refusals: counts who was refused, so that a flood of refused requests leaves its number in the
// audit log and not a row each.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "base/error.h"
#include "platform/audit/audit_log.h"

namespace limner::platform {

struct Refusal {
  int status = 0;         // of HTTP: 401, 403, 422, 429
  std::string code{};     // "permission_denied", "blocked"
  std::string account{};  // "" where it is not known
  std::string key_id{};   // "" where it is not known
  std::string peer{};     // the client's address
  std::string route{};    // method and pattern: "POST /v1/generations"
  auto operator<=>(const Refusal&) const = default;
};

// Any thread may call.
class Refusals {
 public:
  // Between two flushes at most `most` kinds are told apart; the rest are counted by status and
  // code.
  explicit Refusals(AuditLog& log, std::size_t most = 256) : log_(log), most_(most) {}

  void count(Refusal refusal);  // never waits for the disk

  // One entry "refused" per kind since the last flush, with how often; to be called every few
  // seconds and at the end. After an error the counts are kept for the next one.
  Result<void> flush();

 private:
  void add(Refusal refusal, std::int64_t times);  // with mutex_ held

  AuditLog& log_;
  const std::size_t most_;
  std::mutex mutex_;
  std::map<Refusal, std::int64_t> counts_;  // by mutex_
};

}  // namespace limner::platform
