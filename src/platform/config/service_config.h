// ServiceConfig: what `limner serve` is told. Plain data with the defaults; settings.h describes
// each field, load_config.h fills them.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/log.h"
#include "platform/http/address.h"
#include "platform/log_sink.h"

namespace limner::platform {

using Seconds = std::chrono::seconds;
using Days = std::chrono::days;

struct Bytes {
  std::uint64_t count = 0;
};

// Comes from the environment or a file of its own, never from limner.toml, and is never shown.
struct Secret {
  std::string value{};  // "": not set
};

struct ServerConfig {
  std::string host = "127.0.0.1";
  std::int64_t port = 8420;  // 0: one that is free
  std::filesystem::path tls_certificate{}, tls_key{};
  std::string public_url{};  // without a '/' at its end; "": http(s)://host:port
  std::int64_t most_connections = 10'000;
  std::int64_t most_connections_per_address = 1'000;
  Bytes body_limit{std::uint64_t{32} << 20};
  std::vector<http::AddressRange> trusted_proxies{};
  std::vector<std::string> cors_origins{};
  std::int64_t address_requests_per_minute = 1'200;  // 0: no limit
  std::int64_t address_burst = 200;
};

struct LogConfig {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kAuto;
};

struct ModelsConfig {
  std::string default_model = "miniature";
  std::vector<std::string> pinned{};
  std::vector<std::filesystem::path> folders{};
  std::filesystem::path tokenizer{};
  std::filesystem::path templates{};  // "": templates.json in the data folder
};

struct EngineConfig {
  std::string device = "auto";   // auto, cpu, cuda, cuda:N
  std::string dtype = "auto";    // auto, float32, bfloat16, float16
  std::string offload = "auto";  // auto, none, model, sequential
  Bytes memory{};                // 0: what the machine has free
};

struct AdaptersConfig {
  std::vector<std::filesystem::path> folders{};
  std::vector<std::filesystem::path> embeddings{};
  Bytes cache{std::uint64_t{2} << 30};
};

// What one request may ask of any model; a model's own limits may be tighter.
struct LimitsConfig {
  std::int64_t largest_side = 2'048;
  std::int64_t most_steps = 150;
  std::int64_t most_images = 16;
  std::int64_t most_adapters = 16;
  std::int64_t most_pixels = std::int64_t{64} << 20;  // of all its pictures together
};

struct TierConfig {
  double weight = 1.0;
  std::int64_t most_waiting = 0;
  Seconds longest_wait{};
};

struct QueueConfig {
  std::string policy = "fair";  // fair, random
  Seconds lease{15};
  std::int64_t most_crashes = 3;
  std::int64_t most_failures = 5;
  std::int64_t most_waiting_per_account = 1'000;
  double reserved_share = 0.10;
  Days keep_jobs{30};  // 0: for ever
  TierConfig turbo{10.0, 2'000, Seconds{30}};
  TierConfig fast{5.0, 10'000, Seconds{120}};
  TierConfig relax{1.0, 50'000, Seconds{300}};
};

struct DeliveryConfig {
  std::string store = "local";  // local, s3, supabase
  Seconds url_lifetime{3600};
  std::string bucket{};
  std::string prefix{};  // "" or ends with '/'
  // S3 and its kin.
  std::string endpoint{};
  std::string region{};  // "": read off the endpoint's name
  bool path_style = true;
  Secret access_key_id{}, secret_access_key{};
  // Supabase Storage.
  std::string supabase_url{};
  Secret supabase_key{};
};

// 0: for ever.
struct RetentionConfig {
  Days hot{30}, warm{365}, cold{0};
};

struct TelemetryConfig {
  std::string otlp_endpoint{};  // "": no traces
  Secret otlp_headers{};        // "name=value,name=value", values percent-encoded
  std::string service_name = "limner";
  double sample_ratio = 1.0;
};

// The serverless worker, `limner runpod`.
struct RunpodConfig {
  std::string kind = "generate";          // generate, headshot
  std::string unknown_fields = "refuse";  // refuse, report
  std::string load = "start";             // start, first_job
  std::string safety_checker = "off";     // there is none yet
  std::filesystem::path volume = "/runpod-volume";
};

struct ServiceConfig {
  std::filesystem::path data_dir = "limner-data";
  std::int64_t workers = 1;
  std::int64_t threads = 0;  // of each worker; 0: the cores shared between them
  bool rate_limit = true;
  std::vector<http::AddressRange> egress_allow{};
  Seconds drain{30};
  ServerConfig server{};
  LogConfig log{};
  ModelsConfig models{};
  EngineConfig engine{};
  AdaptersConfig adapters{};
  LimitsConfig limits{};
  QueueConfig queue{};
  DeliveryConfig delivery{};
  RetentionConfig retention{};
  TelemetryConfig telemetry{};
  RunpodConfig runpod{};
};

}  // namespace limner::platform
