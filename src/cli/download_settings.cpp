#include "cli/download_settings.h"

#include <fmt/format.h>

#include <cstdlib>
#include <optional>

#include "cli/interrupt.h"

namespace limner::cli {
namespace {

namespace fs = std::filesystem;
using platform::http::NetworkRules;
using platform::http::Url;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Result<Url> endpoint(const char* name, const char* usual) {
  const std::string given = variable(name);
  auto url = platform::http::parse_url(given.empty() ? usual : given);
  if (!url.ok()) {
    return Error{url.error().code, fmt::format("{}: {}", name, url.error().message)};
  }
  url->target.resize(1);  // the path, "/", alone
  return url;
}

void add_key(const char* name, const Result<Url>& host, NetworkRules& rules) {
  const std::string key = variable(name);
  if (key.empty()) return;
  rules.headers.push_back({host->authority(), "Authorization", "Bearer " + key});
}

}  // namespace

Result<Url> hub_endpoint() {
  return endpoint("HF_ENDPOINT", "https://huggingface.co");
}

Result<Url> civitai_endpoint() {
  return endpoint("CIVITAI_ENDPOINT", "https://civitai.com");
}

Result<NetworkRules> network_rules() {
  NetworkRules rules;
  auto allow = platform::http::parse_address_ranges(variable("LIMNER_EGRESS_ALLOW"));
  if (!allow.ok()) {
    return Error{allow.error().code, "LIMNER_EGRESS_ALLOW: " + allow.error().message};
  }
  rules.allow = std::move(*allow);
  rules.ca_file = variable("SSL_CERT_FILE");
  if (rules.ca_file.empty()) rules.ca_file = variable("CURL_CA_BUNDLE");
  const auto hub = hub_endpoint(), civitai = civitai_endpoint();
  if (!hub.ok()) return hub.error();
  if (!civitai.ok()) return civitai.error();
  add_key("HF_TOKEN", hub, rules);
  add_key("CIVITAI_API_KEY", civitai, rules);
  return rules;
}

fs::path download_cache_folder() {
  if (const auto cache = variable("LIMNER_CACHE"); !cache.empty()) {
    return fs::path(cache) / "downloads";
  }
  if (const auto cache = variable("XDG_CACHE_HOME"); !cache.empty()) {
    return fs::path(cache) / "limner" / "downloads";
  }
  return fs::path(variable("HOME")) / ".cache" / "limner" / "downloads";
}

Result<platform::http::Downloaded> download_shown(platform::http::DownloadRequest request,
                                                  const std::string& label,
                                                  const Console& console) {
  const InterruptGuard interrupts;
  std::stop_source stop;
  std::optional<ProgressBar> bar;
  request.stop = stop.get_token();
  request.progress = [&](const platform::http::Progress& progress) {
    if (InterruptGuard::requested()) stop.request_stop();
    if (!progress.total) return;
    const auto done = static_cast<std::int64_t>(progress.done);
    if (!bar) {
      bar.emplace(console, label, static_cast<std::int64_t>(*progress.total),
                  ProgressBar::Unit::kBytes, done);
    }
    bar->update(done);
  };
  return platform::http::download(request);
}

}  // namespace limner::cli
