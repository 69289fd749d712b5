#include "gateway/api_v1/idempotency.h"

#include <fmt/format.h>

#include <algorithm>

#include "gateway/api_v1/answers.h"

namespace limner::gateway::api_v1 {
namespace {

using http::beast_http::status;

constexpr std::size_t kMostAnswers = 4096;
constexpr std::size_t kLongestKey = 255;

}  // namespace

std::optional<queue::Idempotency> idempotency_of(const http::Request& request,
                                                 const http::Caller& caller,
                                                 std::string fingerprint) {
  if (request.headers.count("Idempotency-Key") == 0) return std::nullopt;
  const std::string_view key = request.header("Idempotency-Key");
  const bool fits =
      !key.empty() && key.size() <= kLongestKey &&
      std::all_of(key.begin(), key.end(), [](char c) { return c >= ' ' && c < 0x7F; });
  if (!fits) {
    refuse(status::bad_request, "invalid_idempotency_key",
           fmt::format("Idempotency-Key must be 1 to {} printable ASCII characters.", kLongestKey));
  }
  return queue::Idempotency{.scope = fmt::format("{} POST {}", caller.account, request.route),
                            .key = std::string(key),
                            .fingerprint = std::move(fingerprint)};
}

IdempotentAnswers::Claim::~Claim() {
  const std::lock_guard lock(answers_.mutex_);
  answers_.claimed_.erase(key_);
}

std::unique_ptr<IdempotentAnswers::Claim> IdempotentAnswers::claim(
    const queue::Idempotency& idempotency) {
  std::string key = idempotency.scope + "\n" + idempotency.key;
  {
    const std::lock_guard lock(mutex_);
    if (!claimed_.insert(key).second) {
      throw http::ProblemFailure(
          {.status = status::conflict,
           .code = "idempotency_key_in_use",
           .detail = "A request with this Idempotency-Key is being answered at this moment.",
           .retry_after = std::chrono::seconds(1)});
    }
  }
  return std::make_unique<Claim>(*this, std::move(key));
}

void IdempotentAnswers::remember(const std::string& id, std::string body) {
  const std::lock_guard lock(mutex_);
  if (!answers_.emplace(id, std::move(body)).second) return;
  order_.push_back(id);
  if (order_.size() <= kMostAnswers) return;
  answers_.erase(order_.front());
  order_.pop_front();
}

std::optional<std::string> IdempotentAnswers::recall(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = answers_.find(id);
  return found == answers_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace limner::gateway::api_v1
