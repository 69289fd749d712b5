// Idempotency-Key: one key, one generation (IETF draft-ietf-httpapi-idempotency-key-header-07).
// That equal keys make one job is the queue's promise, kept on the disk; here is what a gateway
// adds: no two twins at the same time, and the first answer once more, word for word.
#pragma once

#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "gateway/http/message.h"
#include "queue/store.h"

namespace limner::gateway::api_v1 {

// Nothing without the header. Throws ProblemFailure, 400, for a key that is empty, longer than 255
// characters or not of printable ASCII.
std::optional<queue::Idempotency> idempotency_of(const http::Request& request,
                                                 const http::Caller& caller,
                                                 std::string fingerprint);

// Safe to call from many threads.
class IdempotentAnswers {
 public:
  // Held while the request with a key is being answered.
  class Claim {
   public:
    Claim(IdempotentAnswers& answers, std::string key) : answers_(answers), key_(std::move(key)) {}
    ~Claim();
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;

   private:
    IdempotentAnswers& answers_;
    const std::string key_;
  };

  // Throws ProblemFailure, 409, while a twin is being answered.
  std::unique_ptr<Claim> claim(const queue::Idempotency& idempotency);

  // The body of the first 202, by the job's id; of the last few thousand, and as long as the
  // process lives. Afterwards a replay tells the job's place of that moment.
  void remember(const std::string& id, std::string body);
  std::optional<std::string> recall(const std::string& id) const;

 private:
  mutable std::mutex mutex_;
  std::unordered_set<std::string> claimed_;               // by mutex_
  std::unordered_map<std::string, std::string> answers_;  // by mutex_
  std::deque<std::string> order_;                         // by mutex_; of answers_, oldest first
};

}  // namespace limner::gateway::api_v1
