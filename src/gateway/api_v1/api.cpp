#include "gateway/api_v1/api.h"

#include <fmt/format.h>

#include "base/quote.h"
#include "gateway/api_v1/answers.h"

namespace limner::gateway::api_v1 {

using contract::JobStatus;

Moment moment_of(const ApiV1Services& services, const contract::Job& job) {
  Moment moment;
  if (job.status == JobStatus::kQueued) moment.place = services.queue.place(job.id);
  if (job.status != JobStatus::kRunning) return moment;
  auto told = services.queue.events(job.id, job.last_event).value_or_throw();
  for (contract::JobEvent& event : told) {
    if (event.type == "progress") moment.progress = std::move(event);
  }
  return moment;
}

Shown show(const ApiV1Services& services, const http::Caller& caller, const std::string& id) {
  auto job = services.queue.find(id).value_or_throw();
  if (!job || (job->account != caller.account && !caller.may_administer)) {
    refuse(http::beast_http::status::not_found, "not_found",
           fmt::format("There is no generation {}.", quote(id)));
  }
  Moment moment = moment_of(services, *job);
  return {std::move(*job), std::move(moment)};
}

}  // namespace limner::gateway::api_v1
