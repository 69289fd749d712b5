// Api: the state that the routes share, and what several of them do.
#pragma once

#include <memory>
#include <string>

#include "gateway/api_v1/idempotency.h"
#include "gateway/api_v1/services.h"

namespace limner::gateway::api_v1 {

struct Api {
  explicit Api(ApiV1Services handed_in) : services(std::move(handed_in)) {}
  const ApiV1Services services;
  IdempotentAnswers answers;
};

// A job as one moment shows it.
struct Shown {
  contract::Job job;
  Moment moment;
};

// These block: to be called on the pool. Throw Failure, or 404 for a job that there is not, or that
// is another account's and `caller` is no administrator: the two are not told apart.
Shown show(const ApiV1Services& services, const http::Caller& caller, const std::string& id);
Moment moment_of(const ApiV1Services& services, const contract::Job& job);

}  // namespace limner::gateway::api_v1
