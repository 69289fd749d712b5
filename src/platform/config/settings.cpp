#include "platform/config/settings.h"

#include <algorithm>
#include <cctype>
#include <iterator>

#include "platform/http/url.h"

namespace limner::platform {
namespace {

using Config = ServiceConfig;
using Settings = std::vector<Setting>;

template <typename Pick>
Field at(Pick pick) {
  return +pick;
}

std::string_view check_host(const std::string& text) {
  const bool plain = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '-' || c == ':' || c == '_';
  });
  return plain && !text.empty() ? "" : "an address or a host name";
}

std::string_view check_url(const std::string& text) {
  return text.empty() || http::parse_url(text).ok() ? "" : "https://HOST[:PORT][/PATH], or http://";
}

std::string_view check_base_url(const std::string& text) {
  const bool open = text.ends_with('/') || text.find_first_of("?#") != std::string::npos;
  if (!open && check_url(text).empty()) return "";
  return "https://HOST[:PORT][/PATH] without '/', query or fragment at its end";
}

std::string_view check_origin(const std::string& text) {
  if (text == "*") return "";
  const auto url = http::parse_url(text);
  const bool bare = url.ok() && url->target == "/" && !text.ends_with('/') &&
                    text.find_first_of("?#") == std::string::npos;
  return bare ? "" : "an origin such as https://studio.example.com, or *";
}

std::string_view check_device(const std::string& text) {
  const auto number = std::string_view(text).substr(std::min<std::size_t>(text.size(), 5));
  const bool numbered = text.starts_with("cuda:") && !number.empty() && number.size() <= 3 &&
                        number.find_first_not_of("0123456789") == std::string_view::npos;
  return numbered || text == "auto" || text == "cpu" || text == "cuda"
             ? ""
             : "auto, cpu, cuda or cuda:N";
}

std::string_view check_prefix(const std::string& text) {
  return text.empty() || text.ends_with('/') ? "" : "a prefix that ends with '/'";
}

std::string_view check_not_empty(const std::string& text) {
  return text.empty() ? "a text that is not empty" : "";
}

Settings general() {
  return {
      {.name = "data_dir",
       .field = at([](Config& c) -> auto& { return c.data_dir; }),
       .sentence = "Folder of the service: limner.db, artifacts/, and the drop-in folders models/, "
                   "loras/, embeddings/ and templates.json.",
       .check = check_not_empty},
      {.name = "workers",
       .field = at([](Config& c) -> auto& { return c.workers; }),
       .sentence = "Workers that draw, each with the models it holds.",
       .least = 1,
       .most = 64},
      {.name = "threads",
       .field = at([](Config& c) -> auto& { return c.threads; }),
       .sentence = "Processor threads of each worker; 0 shares the cores between the workers.",
       .most = 1024},
      {.name = "rate_limit",
       .field = at([](Config& c) -> auto& { return c.rate_limit; }),
       .sentence = "Whether keys and addresses are held to their rates; off is for tests."},
      {.name = "egress_allow",
       .field = at([](Config& c) -> auto& { return c.egress_allow; }),
       .sentence = "Address ranges that downloads and webhooks may reach although they are not "
                   "public, such as 10.0.0.0/8; plain http is possible only there."},
      {.name = "drain_seconds",
       .field = at([](Config& c) -> auto& { return c.drain; }),
       .sentence = "How long SIGTERM waits for requests and jobs under way before jobs go back to "
                   "the queue.",
       .most = 86'400},
  };
}

Settings server() {
  return {
      {.name = "server.host",
       .field = at([](Config& c) -> auto& { return c.server.host; }),
       .sentence = "Address to listen on; 0.0.0.0 or :: is every interface.",
       .check = check_host},
      {.name = "server.port",
       .field = at([](Config& c) -> auto& { return c.server.port; }),
       .sentence = "Port to listen on; 0 takes a free one and says which.",
       .most = 65'535},
      {.name = "server.tls_certificate",
       .field = at([](Config& c) -> auto& { return c.server.tls_certificate; }),
       .sentence = "PEM file with the certificate and its chain; with server.tls_key, the service "
                   "speaks https."},
      {.name = "server.tls_key",
       .field = at([](Config& c) -> auto& { return c.server.tls_key; }),
       .sentence = "PEM file with the certificate's private key."},
      {.name = "server.public_url",
       .field = at([](Config& c) -> auto& { return c.server.public_url; }),
       .sentence = "Where clients reach the service, for the URLs it hands out, such as "
                   "https://draw.example.com; empty is its own host and port.",
       .check = check_base_url},
      {.name = "server.most_connections",
       .field = at([](Config& c) -> auto& { return c.server.most_connections; }),
       .sentence = "Open connections at most.",
       .least = 1,
       .most = 1'000'000},
      {.name = "server.most_connections_per_address",
       .field = at([](Config& c) -> auto& { return c.server.most_connections_per_address; }),
       .sentence = "Open connections from one address at most.",
       .least = 1,
       .most = 1'000'000},
      {.name = "server.body_limit",
       .field = at([](Config& c) -> auto& { return c.server.body_limit; }),
       .sentence = "Size of a request's body at most; a larger one is answered 413.",
       .least = 1024},
      {.name = "server.trusted_proxies",
       .field = at([](Config& c) -> auto& { return c.server.trusted_proxies; }),
       .sentence = "Address ranges of proxies whose X-Forwarded-For is believed."},
      {.name = "server.cors_origins",
       .field = at([](Config& c) -> auto& { return c.server.cors_origins; }),
       .sentence = "Origins of web pages that may call the service; \"*\" is any.",
       .check = check_origin},
      {.name = "server.address_requests_per_minute",
       .field = at([](Config& c) -> auto& { return c.server.address_requests_per_minute; }),
       .sentence = "Requests a minute from one address, before a key is looked at; 0 is no limit.",
       .most = 60'000'000},
      {.name = "server.address_burst",
       .field = at([](Config& c) -> auto& { return c.server.address_burst; }),
       .sentence = "Requests from one address that may come at once.",
       .least = 1,
       .most = 1'000'000},
  };
}

Settings logging() {
  return {
      {.name = "log.level",
       .field = at([](Config& c) -> auto& { return c.log.level; }),
       .sentence = "What is logged: this level and what is worse.",
       .choices = {"debug", "info", "warning", "error"}},
      {.name = "log.format",
       .field = at([](Config& c) -> auto& { return c.log.format; }),
       .sentence = "json writes one object a line, text is for people, auto is text on a terminal "
                   "and json elsewhere.",
       .choices = {"auto", "json", "text"}},
  };
}

Settings models() {
  return {
      {.name = "models.default",
       .field = at([](Config& c) -> auto& { return c.models.default_model; }),
       .sentence = "Name of the model that draws requests which name none.",
       .environment = "LIMNER_MODEL",
       .check = check_not_empty},
      {.name = "models.pinned",
       .field = at([](Config& c) -> auto& { return c.models.pinned; }),
       .sentence = "Names of models that stay in memory once loaded.",
       .check = check_not_empty},
      {.name = "models.folders",
       .field = at([](Config& c) -> auto& { return c.models.folders; }),
       .sentence = "Folders with models, looked in after the data folder's models/.",
       .environment = "LIMNER_MODELS"},
      {.name = "models.tokenizer",
       .field = at([](Config& c) -> auto& { return c.models.tokenizer; }),
       .sentence = "Folder with CLIP's vocab.json and merges.txt, for models that come without.",
       .environment = "LIMNER_TOKENIZER"},
      {.name = "models.templates",
       .field = at([](Config& c) -> auto& { return c.models.templates; }),
       .sentence = "File of templates; empty is templates.json in the data folder.",
       .environment = "LIMNER_TEMPLATES"},
  };
}

Settings engine() {
  return {
      {.name = "engine.device",
       .field = at([](Config& c) -> auto& { return c.engine.device; }),
       .sentence = "Where to draw: auto, cpu, cuda or cuda:N.",
       .environment = "LIMNER_DEVICE",
       .check = check_device},
      {.name = "engine.dtype",
       .field = at([](Config& c) -> auto& { return c.engine.dtype; }),
       .sentence = "Type of the numbers that are computed with.",
       .environment = "LIMNER_DTYPE",
       .choices = {"auto", "float32", "bfloat16", "float16"}},
      {.name = "engine.offload",
       .field = at([](Config& c) -> auto& { return c.engine.offload; }),
       .sentence = "What leaves the device between its uses: one network at a time (model), one "
                   "layer at a time (sequential), nothing (none).",
       .environment = "LIMNER_OFFLOAD",
       .choices = {"auto", "none", "model", "sequential"}},
      {.name = "engine.memory",
       .field = at([](Config& c) -> auto& { return c.engine.memory; }),
       .sentence = "Memory that models and pictures may take in all; 0 is what the machine has "
                   "free."},
  };
}

Settings adapters() {
  return {
      {.name = "adapters.folders",
       .field = at([](Config& c) -> auto& { return c.adapters.folders; }),
       .sentence = "Folders with adapters, looked in after the data folder's loras/.",
       .environment = "LIMNER_LORAS"},
      {.name = "adapters.embeddings",
       .field = at([](Config& c) -> auto& { return c.adapters.embeddings; }),
       .sentence = "Folders with textual inversions, looked in after the data folder's "
                   "embeddings/.",
       .environment = "LIMNER_EMBEDDINGS"},
      {.name = "adapters.cache",
       .field = at([](Config& c) -> auto& { return c.adapters.cache; }),
       .sentence = "Memory for adapters that are kept between jobs, of each loaded model."},
  };
}

Settings limits() {
  return {
      {.name = "limits.largest_side",
       .field = at([](Config& c) -> auto& { return c.limits.largest_side; }),
       .sentence = "Width and height of a picture at most, in pixels.",
       .least = 64,
       .most = 16'384},
      {.name = "limits.most_steps",
       .field = at([](Config& c) -> auto& { return c.limits.most_steps; }),
       .sentence = "Steps of a picture at most.",
       .least = 1,
       .most = 1'000},
      {.name = "limits.most_images",
       .field = at([](Config& c) -> auto& { return c.limits.most_images; }),
       .sentence = "Pictures of a request at most.",
       .least = 1,
       .most = 1'024},
      {.name = "limits.most_adapters",
       .field = at([](Config& c) -> auto& { return c.limits.most_adapters; }),
       .sentence = "Adapters of a request at most; 0 allows none.",
       .most = 64},
      {.name = "limits.most_pixels",
       .field = at([](Config& c) -> auto& { return c.limits.most_pixels; }),
       .sentence = "Pixels of all pictures of a request together at most.",
       .least = 4'096,
       .most = 17'179'869'184},
  };
}

Settings queue() {
  return {
      {.name = "queue.policy",
       .field = at([](Config& c) -> auto& { return c.queue.policy; }),
       .sentence = "How the next tier is chosen: fair, the one furthest behind its share, or "
                   "random, by its share as probability.",
       .choices = {"fair", "random"}},
      {.name = "queue.lease_seconds",
       .field = at([](Config& c) -> auto& { return c.queue.lease; }),
       .sentence = "Without a heartbeat for so long, a worker is taken for dead and its job is "
                   "drawn again.",
       .least = 5,
       .most = 3'600},
      {.name = "queue.most_crashes",
       .field = at([](Config& c) -> auto& { return c.queue.most_crashes; }),
       .sentence = "Vanished workers after which a job is given up.",
       .least = 1,
       .most = 100},
      {.name = "queue.most_failures",
       .field = at([](Config& c) -> auto& { return c.queue.most_failures; }),
       .sentence = "Errors that may pass after which a job has failed.",
       .least = 1,
       .most = 100},
      {.name = "queue.most_waiting_per_account",
       .field = at([](Config& c) -> auto& { return c.queue.most_waiting_per_account; }),
       .sentence = "Jobs of one account that may wait; more are answered 429.",
       .least = 1,
       .most = 100'000'000},
      {.name = "queue.reserved_share",
       .field = at([](Config& c) -> auto& { return c.queue.reserved_share; }),
       .sentence = "Share of the workers' time that each tier has for itself while it has work.",
       .most = 0.33},
      {.name = "queue.keep_jobs_days",
       .field = at([](Config& c) -> auto& { return c.queue.keep_jobs; }),
       .sentence = "How long ended jobs can be read; 0 is for ever.",
       .most = 36'500},
  };
}

template <TierConfig QueueConfig::* Tier>
Settings tier(const std::string& name) {
  return {
      {.name = "queue." + name + ".weight",
       .field = at([](Config& c) -> auto& { return (c.queue.*Tier).weight; }),
       .sentence = "Weight of the tier's share of the workers' time.",
       .least = 0.001,
       .most = 1'000'000},
      {.name = "queue." + name + ".most_waiting",
       .field = at([](Config& c) -> auto& { return (c.queue.*Tier).most_waiting; }),
       .sentence = "Jobs of the tier that may wait; more are answered 503.",
       .least = 1,
       .most = 100'000'000},
      {.name = "queue." + name + ".longest_wait_seconds",
       .field = at([](Config& c) -> auto& { return (c.queue.*Tier).longest_wait; }),
       .sentence = "A job that waited longer goes first, as far as its tier may borrow.",
       .least = 1,
       .most = 86'400},
  };
}

Settings delivery() {
  return {
      {.name = "delivery.store",
       .field = at([](Config& c) -> auto& { return c.delivery.store; }),
       .sentence = "Where pictures are kept: local is the data folder's artifacts/.",
       .choices = {"local", "s3", "supabase"}},
      {.name = "delivery.url_lifetime_seconds",
       .field = at([](Config& c) -> auto& { return c.delivery.url_lifetime; }),
       .sentence = "How long a picture's URL opens it.",
       .least = 1,
       .most = 604'800},
      {.name = "delivery.bucket",
       .field = at([](Config& c) -> auto& { return c.delivery.bucket; }),
       .sentence = "Bucket of s3 or supabase; may be empty for s3 where the endpoint names it."},
      {.name = "delivery.prefix",
       .field = at([](Config& c) -> auto& { return c.delivery.prefix; }),
       .sentence = "What the names of all objects in the bucket begin with, such as limner/.",
       .check = check_prefix},
      {.name = "delivery.endpoint",
       .field = at([](Config& c) -> auto& { return c.delivery.endpoint; }),
       .sentence = "URL of the s3 service.",
       .environment = "BUCKET_ENDPOINT_URL",
       .check = check_url},
      {.name = "delivery.region",
       .field = at([](Config& c) -> auto& { return c.delivery.region; }),
       .sentence = "Region of the s3 service; empty is read off the endpoint's name."},
      {.name = "delivery.path_style",
       .field = at([](Config& c) -> auto& { return c.delivery.path_style; }),
       .sentence = "Whether the bucket stands in the path of s3 URLs rather than in their host."},
      {.name = "delivery.access_key_id",
       .field = at([](Config& c) -> auto& { return c.delivery.access_key_id; }),
       .sentence = "Id of the s3 access key.",
       .environment = "BUCKET_ACCESS_KEY_ID"},
      {.name = "delivery.secret_access_key",
       .field = at([](Config& c) -> auto& { return c.delivery.secret_access_key; }),
       .sentence = "The s3 access key.",
       .environment = "BUCKET_SECRET_ACCESS_KEY"},
      {.name = "delivery.supabase_url",
       .field = at([](Config& c) -> auto& { return c.delivery.supabase_url; }),
       .sentence = "URL of the Supabase project.",
       .check = check_url},
      {.name = "delivery.supabase_key",
       .field = at([](Config& c) -> auto& { return c.delivery.supabase_key; }),
       .sentence = "Service key of the Supabase project."},
  };
}

Settings retention() {
  return {
      {.name = "retention.hot_days",
       .field = at([](Config& c) -> auto& { return c.retention.hot; }),
       .sentence = "How long pictures of class hot are kept; 0 is for ever.",
       .most = 36'500},
      {.name = "retention.warm_days",
       .field = at([](Config& c) -> auto& { return c.retention.warm; }),
       .sentence = "How long pictures of class warm are kept; 0 is for ever.",
       .most = 36'500},
      {.name = "retention.cold_days",
       .field = at([](Config& c) -> auto& { return c.retention.cold; }),
       .sentence = "How long pictures of class cold are kept; 0 is for ever.",
       .most = 36'500},
  };
}

Settings telemetry() {
  return {
      {.name = "telemetry.otlp_endpoint",
       .field = at([](Config& c) -> auto& { return c.telemetry.otlp_endpoint; }),
       .sentence = "Collector that traces are sent to by OTLP/HTTP, such as "
                   "http://127.0.0.1:4318; /v1/traces is added. Empty is no traces.",
       .environment = "OTEL_EXPORTER_OTLP_ENDPOINT",
       .check = check_url},
      {.name = "telemetry.otlp_headers",
       .field = at([](Config& c) -> auto& { return c.telemetry.otlp_headers; }),
       .sentence = "Headers for the collector, NAME=VALUE,NAME=VALUE with percent-encoded values.",
       .environment = "OTEL_EXPORTER_OTLP_HEADERS"},
      {.name = "telemetry.service_name",
       .field = at([](Config& c) -> auto& { return c.telemetry.service_name; }),
       .sentence = "Name of this service in traces.",
       .environment = "OTEL_SERVICE_NAME",
       .check = check_not_empty},
      {.name = "telemetry.sample_ratio",
       .field = at([](Config& c) -> auto& { return c.telemetry.sample_ratio; }),
       .sentence = "Share of traces that are recorded where the client's traceparent does not "
                   "decide.",
       .most = 1.0},
  };
}

Settings runpod() {
  return {
      {.name = "runpod.kind",
       .field = at([](Config& c) -> auto& { return c.runpod.kind; }),
       .sentence = "Kind of the jobs that name none; docs/runpod.md describes them.",
       .choices = {"generate", "headshot"}},
      {.name = "runpod.unknown_fields",
       .field = at([](Config& c) -> auto& { return c.runpod.unknown_fields; }),
       .sentence = "What becomes of a job with fields that are not known: it is refused, or they "
                   "are named in its answer and in the log.",
       .choices = {"refuse", "report"}},
      {.name = "runpod.load",
       .field = at([](Config& c) -> auto& { return c.runpod.load; }),
       .sentence = "When the default model is loaded: before the first job is taken, or for it.",
       .choices = {"start", "first_job"}},
      {.name = "runpod.safety_checker",
       .field = at([](Config& c) -> auto& { return c.runpod.safety_checker; }),
       .sentence = "Whether pictures are checked before they are handed out. There is no checker, "
                   "so it can only be off.",
       .choices = {"off"}},
      {.name = "runpod.volume",
       .field = at([](Config& c) -> auto& { return c.runpod.volume; }),
       .sentence =
           "Folder of the network volume: models/, loras/, embeddings/, templates.json, and "
           "the files that jobs name.",
       .check = check_not_empty},
  };
}

std::string variable_of(const std::string& name) {
  std::string variable = "LIMNER_" + name;
  for (char& c : variable) {
    c = c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return variable;
}

Settings make_settings() {
  Settings all;
  for (Settings group :
       {general(), server(), logging(), models(), engine(), adapters(), limits(), queue(),
        tier<&QueueConfig::turbo>("turbo"), tier<&QueueConfig::fast>("fast"),
        tier<&QueueConfig::relax>("relax"), delivery(), retention(), telemetry(), runpod()}) {
    std::move(group.begin(), group.end(), std::back_inserter(all));
  }
  for (Setting& setting : all) {
    if (setting.environment.empty()) setting.environment = variable_of(setting.name);
  }
  return all;
}

}  // namespace

std::span<const Setting> settings() {
  static const Settings all = make_settings();
  return all;
}

std::span<const SettingGroup> setting_groups() {
  static const std::vector<SettingGroup> groups = {
      {"", ""},
      {"server", "The HTTP server."},
      {"log", "What the service says about itself, on standard error."},
      {"models", "Which models there are."},
      {"engine", "How pictures are computed."},
      {"adapters", "LoRA and its kin, and textual inversions."},
      {"limits", "What one request may ask for; a model's own limits may be tighter."},
      {"queue", "How jobs are ordered and given to workers."},
      {"queue.turbo", "The tier turbo."},
      {"queue.fast", "The tier fast."},
      {"queue.relax", "The tier relax."},
      {"delivery", "Where pictures go."},
      {"retention", "How long pictures are kept, by the class that a request chose."},
      {"telemetry", "Traces (OpenTelemetry)."},
      {"runpod", "The serverless worker, limner runpod."},
  };
  return groups;
}

std::string_view group_of(const Setting& setting) {
  const auto dot = setting.name.rfind('.');
  return std::string_view(setting.name).substr(0, dot == std::string::npos ? 0 : dot);
}

std::string_view key_of(const Setting& setting) {
  const auto dot = setting.name.rfind('.');
  return std::string_view(setting.name).substr(dot == std::string::npos ? 0 : dot + 1);
}

std::string file_setting(const Setting& setting) {
  return setting.name + "_file";
}

std::string file_variable(const Setting& setting) {
  return setting.environment + "_FILE";
}

}  // namespace limner::platform
