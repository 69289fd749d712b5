// What a client may write into /run and /runsync, and the names that their jobs get.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "contract/json_fields.h"
#include "delivery/crypto.h"
#include "delivery/webhook_sender.h"
#include "runpod/endpoint.h"

namespace limner::runpod {
namespace {

using contract::Fields;
using nlohmann::json;
using platform::Millis;

constexpr std::int64_t kLeastTimeout = 5'000, kLeastTtl = 10'000;  // ms, as the platform has them
constexpr std::int64_t kMost = std::int64_t{7} * 24 * 3600 * 1000;

void read_time(Fields& fields, const char* name, std::int64_t least, Millis& time) {
  std::int64_t ms = time.count();
  fields.read(name, ms);
  if (ms < least || ms > kMost) {
    fields.wrong(name, fmt::format("must be {} to {} (ms), got {}", least, kMost, ms));
  }
  time = Millis(ms);
}

}  // namespace

Result<RunRequest> read_run_request(const json& body,
                                    const platform::http::NetworkRules& webhooks) {
  if (!body.is_object()) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("the body must be an object with an input, got {}", contract::json_kind(body))};
  }
  RunRequest request;
  std::vector<contract::FieldError> problems;
  Fields fields(body, "", problems);
  if (const json* input = fields.take("input")) {
    request.input = *input;
  } else {
    fields.wrong("input", "is wanted");
  }
  fields.read("webhook", request.webhook);
  if (!request.webhook.empty()) {
    const auto allowed = delivery::check_webhook_url(request.webhook, webhooks);
    if (!allowed.ok()) fields.wrong("webhook", allowed.error().message);
  }
  if (const json* policy = fields.object("policy")) {
    Fields limits(*policy, "policy.", problems);
    read_time(limits, "executionTimeout", kLeastTimeout, request.execution_timeout);
    read_time(limits, "ttl", kLeastTtl, request.ttl);
    bool low_priority = false;
    limits.read("lowPriority", low_priority);
    limits.finish();
  }
  if (const json* store = fields.object("s3Config")) request.s3_config = *store;
  fields.finish();
  if (problems.empty()) return request;
  std::vector<std::string> wrong;
  for (const auto& [field, message] : problems) {
    wrong.push_back(fmt::format("{} {}", field, message));
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("{}", fmt::join(wrong, "; "))};
}

std::string new_job_id(bool sync) {
  std::string hex;
  for (const std::uint8_t byte : delivery::random_bytes(16)) hex += fmt::format("{:02x}", byte);
  for (const std::size_t place : {20, 16, 12, 8}) hex.insert(place, 1, '-');
  return fmt::format("{}{}-e1", sync ? "sync-" : "", hex);
}

}  // namespace limner::runpod
