#include "runpod/volume/target.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "platform/http/url.h"
#include "runpod/volume/env_file.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHostStart = "s3api-", kHostEnd = ".runpod.io";
const fs::path kUsualFile = ".env";

std::string in_case(std::string text, int (*change)(int)) {
  for (char& c : text) c = static_cast<char>(change(static_cast<unsigned char>(c)));
  return text;
}

// "EU-RO-1" of RunPod's hosts; "" of any other.
std::string data_center_of(const std::string& host) {
  if (!host.starts_with(kHostStart) || !host.ends_with(kHostEnd)) return "";
  const std::string name =
      host.substr(kHostStart.size(), host.size() - kHostStart.size() - kHostEnd.size());
  return in_case(name, std::toupper);
}

class Variables {
 public:
  explicit Variables(const TargetRequest& request) : environment_(request.environment) {
    std::error_code ignored;
    const bool named = !request.env_file.empty();
    if (named || fs::exists(kUsualFile, ignored))
      file_ = read_env_file(named ? request.env_file : kUsualFile).value_or_throw();
  }

  std::string get(const std::string& name) const {
    const std::string set = environment_(name);
    const auto in_file = file_.find(name);
    return set.empty() && in_file != file_.end() ? in_file->second : set;
  }
  // The first that is set.
  std::string first(const std::string& given, std::initializer_list<const char*> names) const {
    std::string value = given;
    for (auto name = names.begin(); value.empty() && name != names.end(); ++name)
      value = get(*name);
    return value;
  }

 private:
  std::function<std::string(const std::string&)> environment_;
  std::map<std::string, std::string> file_;
};

[[noreturn]] void refuse(const std::string& why) {
  throw Failure(ErrorCode::kInvalidArgument, why);
}

// A key and its secret belong together, so they are never taken from two places.
delivery::sigv4::Credentials credentials(const Variables& variables) {
  constexpr std::pair<const char*, const char*> kPairs[] = {
      {"RUNPOD_S3_ACCESS_KEY", "RUNPOD_S3_SECRET_KEY"},
      {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}};
  for (const auto& [key_name, secret_name] : kPairs) {
    const std::string key = variables.get(key_name), secret = variables.get(secret_name);
    if (key.empty() && secret.empty()) continue;
    if (key.empty() || secret.empty()) {
      refuse(fmt::format("{} is set and {} is not: want both", key.empty() ? secret_name : key_name,
                         key.empty() ? key_name : secret_name));
    }
    const bool amazon = key_name == kPairs[1].first;
    return {key, secret, amazon ? variables.get("AWS_SESSION_TOKEN") : ""};
  }
  refuse(
      "no keys for the volume: set RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY in the "
      "environment "
      "or in .env (RunPod console, Settings, S3 API Keys)");
}

void fill_place(const TargetRequest& request, const Variables& variables,
                delivery::S3Options& options) {
  options.bucket = variables.first(
      request.bucket, {"RUNPOD_S3_BUCKET", "RUNPOD_VOLUME_ID", "RUNPOD_NETWORK_VOLUME_ID"});
  if (options.bucket.empty())
    refuse("no volume is named: give --bucket ID (the volume's id), or set RUNPOD_VOLUME_ID");
  options.endpoint = variables.first(
      request.endpoint, {"RUNPOD_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"});
  std::string region =
      variables.first(request.region, {"RUNPOD_S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"});
  if (options.endpoint.empty() && region.empty()) {
    refuse(
        "no endpoint: give --region with the volume's data centre, such as EU-RO-1, or --endpoint, "
        "or set RUNPOD_S3_REGION or RUNPOD_S3_ENDPOINT");
  }
  if (options.endpoint.empty())
    options.endpoint =
        fmt::format("https://{}{}{}", kHostStart, in_case(region, std::tolower), kHostEnd);
  const auto url = platform::http::parse_url(options.endpoint);
  if (!url.ok()) refuse("the S3 endpoint: " + url.error().message);
  const std::string data_center = data_center_of(url->host);
  // RunPod's own are written in capitals, and a signature minds that.
  if (!data_center.empty()) region = data_center;
  options.region = region.empty() ? delivery::s3_region(url->host) : region;
}

}  // namespace

Result<delivery::S3Options> upload_target(const TargetRequest& request) {
  try {
    const Variables variables(request);
    delivery::S3Options options;
    fill_place(request, variables, options);
    options.credentials = credentials(variables);
    return options;
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::runpod
