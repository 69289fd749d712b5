#include <fmt/format.h>

#include "delivery/s3_client.h"

namespace limner::delivery {

// AWS: [BUCKET.]s3.REGION.amazonaws.com; DigitalOcean: [BUCKET.]REGION.digitaloceanspaces.com.
std::string s3_region(const std::string& host) {
  const auto label_before = [&](std::size_t dot) {
    const auto start = host.rfind('.', dot - 1);
    return host.substr(start == std::string::npos ? 0 : start + 1,
                       dot - (start == std::string::npos ? 0 : start + 1));
  };
  const auto amazon = host.find(".amazonaws.com");
  if (amazon != std::string::npos && amazon > 0) {
    const std::string region = label_before(amazon);
    if (region != "s3") return region;
  }
  const auto ocean = host.find(".digitaloceanspaces.com");
  if (ocean != std::string::npos && ocean > 0) return label_before(ocean);
  return "us-east-1";
}

Result<std::optional<S3Options>> s3_from_bucket_environment(
    const std::function<std::string(const std::string&)>& get) {
  const char* const names[] = {"BUCKET_ENDPOINT_URL", "BUCKET_ACCESS_KEY_ID",
                               "BUCKET_SECRET_ACCESS_KEY"};
  std::string values[3], missing;
  for (int i = 0; i < 3; ++i) {
    values[i] = get(names[i]);
    if (values[i].empty()) missing += (missing.empty() ? "" : " and ") + std::string(names[i]);
  }
  if (values[0].empty() && values[1].empty() && values[2].empty())
    return std::optional<S3Options>();
  if (!missing.empty()) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("[s3] want all three of BUCKET_ENDPOINT_URL, BUCKET_ACCESS_KEY_ID and "
                    "BUCKET_SECRET_ACCESS_KEY, or none; {} not set",
                    missing + (missing.find(" and ") == std::string::npos ? " is" : " are"))};
  }
  const auto url = platform::http::parse_url(values[0]);
  if (!url) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[s3] BUCKET_ENDPOINT_URL: {}", url.error().message)};
  }
  S3Options options;
  options.endpoint = values[0];
  options.region = s3_region(url->host);
  options.credentials = {values[1], values[2], ""};
  return std::optional<S3Options>(std::move(options));
}

}  // namespace limner::delivery
