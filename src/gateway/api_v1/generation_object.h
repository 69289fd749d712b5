// The public face of a job: the object that GET /v1/generations/{id}, the last event of a stream
// and webhooks show.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "contract/artifact.h"
#include "contract/job.h"
#include "contract/job_request.h"
#include "delivery/store.h"
#include "platform/clock.h"
#include "queue/queue.h"

namespace limner::gateway::api_v1 {

// What showing a job needs. URLs are made at that moment and open the pictures for `url_lifetime`.
struct Showing {
  delivery::ArtifactStore& artifacts;
  const platform::Clock& clock;
  std::string public_url{};  // before the paths of `urls`: "https://pictures.example"; "": none
  std::chrono::seconds url_lifetime = std::chrono::hours(1);
};

// What a job's row does not say of it.
struct Moment {
  std::optional<queue::QueuePlace> place{};      // of a queued job
  std::optional<contract::JobEvent> progress{};  // the newest "progress" event of a running one
};

// `job` is whole, with request and result, as Queue::find gives it. Throws Failure: kInternal when
// its texts cannot be read, and what ArtifactStore::sign fails with.
nlohmann::json generation_object(const contract::Job& job, const Showing& showing,
                                 const Moment& moment = {});

// The answer to an accepted request: request_id, status, tier, position, eta_seconds, urls.
nlohmann::json accepted_object(const contract::Job& job, const Showing& showing,
                               const std::optional<queue::QueuePlace>& place);

// One picture, as `images[]` and the "image" event show it.
nlohmann::json image_object(const contract::Artifact& artifact, const Showing& showing);

// Equal while nothing changes that the object shows; another one every ten minutes for a job with
// pictures, so that whoever is told "not modified" holds URLs that are good for a while. Weak
// (RFC 9110, section 8.8.3): the URLs of two equal objects differ in their signatures.
std::string generation_etag(const contract::Job& job, const Moment& moment,
                            const platform::Clock& clock);

// Where a generation is found: "/v1/generations/ID", behind the public URL.
std::string generation_url(std::string_view id, const Showing& showing);

// The end of a URL that is made now; a signature knows seconds.
std::string url_expiry(const Showing& showing);

// RFC 3339 in UTC, "2026-11-21T14:53:49.120Z"; of milliseconds since 1970.
std::string timestamp(std::int64_t milliseconds);

}  // namespace limner::gateway::api_v1
