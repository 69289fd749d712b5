// What a job's event becomes as a webhook message: whether it is told, under which id, with what
// body. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "contract/job.h"
#include "queue/store.h"

namespace limner::gateway::webhooks {

// The name, among contract::webhook_events(), of the event that an outbox row or a queue's event
// is: "started" for "running". Nothing for one that is not told.
std::optional<std::string> event_name(std::string_view type);

// No wish at all means every terminal event.
bool wanted(const std::vector<std::string>& wishes, std::string_view event);

// The webhook-id: always the same for one event of one job, so that making a message twice makes
// one.
std::string message_id(std::string_view job_id, std::int64_t event_id);

// The job as it was at the row's event, as far as its present row can tell: a job that has started
// since is shown queued by its "queued" message.
contract::Job as_of(contract::Job job, const queue::OutboxRow& row);

// {"type": "generation.EVENT", "timestamp": AT, "data": DATA}, within the 20,000 bytes that a
// message may have: of larger data the pictures and the client's metadata are left out, and
// "truncated": true says so; the whole object is at data.urls.self. `at` in milliseconds since
// 1970.
std::string message_body(std::string_view event, std::int64_t at, nlohmann::json data);

}  // namespace limner::gateway::webhooks
