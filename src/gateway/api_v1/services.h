// What the native API is made of, handed in by whoever wires the service.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "contract/catalog.h"
#include "delivery/signed_url.h"
#include "delivery/store.h"
#include "gateway/api_v1/event_hub.h"
#include "gateway/api_v1/generation_body.h"
#include "gateway/api_v1/generation_object.h"
#include "gateway/http/blocking.h"
#include "gateway/http/message.h"
#include "platform/audit/audit_log.h"
#include "platform/clock.h"
#include "platform/http/download.h"
#include "platform/metrics/metrics.h"
#include "platform/templates/template_store.h"
#include "queue/queue.h"

namespace limner::gateway::api_v1 {

// A worker of this process, as /v1/workers shows it.
struct WorkerView {
  std::string name{};
  std::string state{}, meaning{};  // "generating", and a sentence
  std::string reason{};            // why it is in that state
  std::int64_t since = 0;          // milliseconds since 1970
  std::string job{}, model{};      // "": none
  std::int64_t step = 0, steps = 0;
  std::size_t completed = 0;         // jobs since the start
  std::size_t replaced_threads = 0;  // that hung
};

// The references outlive the routes; everything named here is safe to call from many threads.
struct ApiV1Services {
  queue::Queue& queue;
  queue::Store& store;  // the queue's, for usage
  EventHub& hub;        // fed by Queue::on_event
  const contract::CatalogSource& catalog;
  platform::TemplateStore* templates = nullptr;  // nullptr: this service has none
  delivery::ArtifactStore& artifacts;
  const delivery::UrlSigner& signer;  // of the URLs under /v1/artifacts
  http::Blocking& blocking;
  const platform::Clock& clock;
  const platform::Metrics& metrics;
  Log& log;

  // What webhooks and adapters named by URL may reach.
  platform::http::NetworkRules network{};
  std::string public_url{};  // "https://pictures.example"; "": URLs in answers are paths
  std::chrono::seconds url_lifetime = std::chrono::hours(1);
  BodyLimits body{};
  std::chrono::seconds longest_wait = std::chrono::minutes(5);  // that Prefer: wait is given
  std::chrono::seconds picture_wait = std::chrono::minutes(2);  // of Accept: image/* without one

  // Why the service takes no work at present, a sentence each; empty: it is ready.
  std::function<std::vector<std::string>()> not_ready{};
  // Asked before a request is queued, with its number of pictures: the answer to give instead (the
  // day's pictures are used up, too many requests at once). Absent: everybody may.
  std::function<std::optional<http::Problem>(const http::Caller&, std::int64_t images)> refuse{};
  // Told when a request that `refuse` let pass was not queued after all.
  std::function<void(const http::Caller&, std::int64_t images)> not_queued{};
  std::function<std::vector<WorkerView>()> workers{};  // absent: none in this process
  // A fresh thread for every worker that hangs and got none by itself; how many there were.
  std::function<std::size_t()> reinitialize{};
  // Writes an act that changes nothing in the database; throws Failure where it cannot. Those that
  // do are written with their change.
  std::function<void(const platform::AuditAct&)> audit{};

  Showing showing() const { return {artifacts, clock, public_url, url_lifetime}; }
};

}  // namespace limner::gateway::api_v1
