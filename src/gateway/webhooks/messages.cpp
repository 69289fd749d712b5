#include "gateway/webhooks/messages.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/sha256.h"
#include "delivery/webhook_delivery.h"

namespace limner::gateway::webhooks {
namespace {

using contract::JobStatus;

constexpr std::size_t kLargestBody = 20'000;  // of Standard Webhooks 1.0.0
constexpr std::size_t kIdDigits = 32;

bool is_terminal(std::string_view event) {
  const auto status = contract::status_named(event);
  return status && contract::is_terminal(*status);
}

}  // namespace

std::optional<std::string> event_name(std::string_view type) {
  if (type == contract::name(JobStatus::kRunning)) return "started";
  if (type == contract::name(JobStatus::kQueued) || type == "progress" || is_terminal(type)) {
    return std::string(type);
  }
  return std::nullopt;
}

bool wanted(const std::vector<std::string>& wishes, std::string_view event) {
  if (wishes.empty()) return is_terminal(event);
  return std::find(wishes.begin(), wishes.end(), event) != wishes.end();
}

std::string message_id(std::string_view job_id, std::int64_t event_id) {
  const std::string name = fmt::format("{}:{}", job_id, event_id);
  return "msg_" + sha256_hex(std::as_bytes(std::span(name))).substr(0, kIdDigits);
}

contract::Job as_of(contract::Job job, const queue::OutboxRow& row) {
  const auto then = contract::status_named(row.type);
  if (!then || job.status == *then) return job;
  job.status = *then;
  job.result.clear();
  job.error.reset();
  job.finished_at = contract::is_terminal(*then) ? row.at : 0;
  if (*then == JobStatus::kQueued) job.started_at = 0;
  return job;
}

std::string message_body(std::string_view event, std::int64_t at, nlohmann::json data) {
  const std::string type = fmt::format("generation.{}", event);
  const delivery::Time time{std::chrono::milliseconds(at)};
  const auto write = [&] {
    // Text of a client or a library may hold bytes that are not UTF-8.
    return delivery::webhook_body(
        type, time, data.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  };
  std::string body = write();
  if (body.size() <= kLargestBody) return body;
  data.erase("metadata");
  data["images"] = nlohmann::json::array();
  data["truncated"] = true;
  return write();
}

}  // namespace limner::gateway::webhooks
