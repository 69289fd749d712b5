#include "delivery/store_settings.h"

#include <fmt/format.h>

#include <string>

namespace limner::delivery {

bool names_s3(const platform::DeliveryConfig& config) {
  return !config.endpoint.empty() || !config.access_key_id.value.empty() ||
         !config.secret_access_key.value.empty();
}

Result<S3Options> s3_options(const platform::DeliveryConfig& config) {
  std::string missing;
  const auto want = [&](const std::string& value, const char* name) {
    if (value.empty()) missing += (missing.empty() ? "" : " and ") + std::string(name);
  };
  want(config.endpoint, "delivery.endpoint (BUCKET_ENDPOINT_URL)");
  want(config.access_key_id.value, "delivery.access_key_id (BUCKET_ACCESS_KEY_ID)");
  want(config.secret_access_key.value, "delivery.secret_access_key (BUCKET_SECRET_ACCESS_KEY)");
  if (!missing.empty()) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("[s3] an S3 bucket wants its endpoint, a key's id and the key; missing: "
                    "{}",
                    missing)};
  }
  const auto url = platform::http::parse_url(config.endpoint);
  if (!url.ok()) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("[s3] delivery.endpoint (BUCKET_ENDPOINT_URL): {}", url.error().message)};
  }
  S3Options options;
  options.endpoint = config.endpoint;
  options.bucket = config.bucket;
  options.region = config.region.empty() ? s3_region(url->host) : config.region;
  options.addressing = config.path_style ? Addressing::kPath : Addressing::kHost;
  options.credentials = {config.access_key_id.value, config.secret_access_key.value, ""};
  return options;
}

SupabaseOptions supabase_options(const platform::DeliveryConfig& config) {
  SupabaseOptions options;
  options.url = config.supabase_url;
  options.service_key = config.supabase_key.value;
  options.bucket = config.bucket;
  return options;
}

}  // namespace limner::delivery
