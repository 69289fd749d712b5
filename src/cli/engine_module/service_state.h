// What a service is made of, and what its parts ask of each other.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/engine_module/service.h"
#include "cli/engine_module/service_parts.h"
#include "delivery/webhook_store.h"
#include "gateway/api_v1/routes.h"
#include "gateway/http/service.h"
#include "gateway/maintenance.h"
#include "gateway/webhooks/notifier.h"
#include "platform/accounts/quotas.h"
#include "platform/accounts/rate_limiter.h"
#include "platform/audit/refusals.h"
#include "platform/file_lock.h"
#include "worker/worker_pool.h"

namespace limner::cli {

// In the order in which they are made; each may use those above it. Its functions lie in
// service.cpp (wiring) and service_api.cpp (what the gateway asks).
struct Service::Parts {
  Parts(platform::ServiceConfig given, platform::LogSink& its_log);

  platform::ServiceConfig config;
  platform::LogSink& log;
  platform::SystemClock clock;
  platform::FileLock lock;
  const std::filesystem::path database;
  platform::Metrics metrics;
  const platform::http::NetworkRules network;  // what users may make the service reach
  platform::http::WebExchange to_users, to_operators;
  std::unique_ptr<platform::Tracer> tracer;

  std::unique_ptr<platform::KeyStore> keys;
  std::unique_ptr<platform::AuditLog> audit;
  platform::Refusals refusals;
  std::optional<platform::NewKey> first_key;

  std::unique_ptr<queue::Store> store;
  std::unique_ptr<queue::Queue> queue;
  const delivery::UrlSigner signer;
  const std::string public_url;
  ArtifactStores artifacts;
  std::unique_ptr<platform::TemplateStore> templates;

  const std::vector<std::filesystem::path> adapter_folders;
  worker::ModelCache models;
  worker::CatalogBuilder catalog;
  worker::WorkerPool workers;

  std::unique_ptr<delivery::WebhookStore> messages;
  gateway::webhooks::Notifier notifier;
  gateway::DiskWatch disk;
  gateway::Maintenance maintenance, sweeping;

  platform::RateLimiter of_addresses, of_keys;
  platform::ConcurrentRequests under_way;
  platform::DailyImages daily;
  std::atomic<bool> draining{false};
  gateway::api_v1::EventHub hub;
  gateway::http::Blocking blocking;
  gateway::http::Router router;
  gateway::http::Server server;

  engine::EngineOptions engine_options() const;
  worker::ModelCacheOptions cache_options() const;
  worker::CatalogOptions catalog_options() const;
  worker::WorkerPoolOptions pool_options() const;
  gateway::ChoreServices chore_services();
  gateway::ChoreTimes chore_times() const;
  std::vector<gateway::Chore> chores();
  gateway::api_v1::ApiV1Services api_services();
  gateway::http::ServiceOptions service_options();
  gateway::http::Handler handler();

  double workers_needed() const;
  void give_back(const std::string& job_id);
  std::vector<gateway::api_v1::WorkerView> worker_views() const;
  std::vector<std::string> not_ready() const;
  std::optional<gateway::http::Problem> refuse(const gateway::http::Caller& who,
                                               std::int64_t images);
  Result<gateway::http::Caller> caller(std::string_view bearer);
};

}  // namespace limner::cli
