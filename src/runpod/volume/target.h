// Which bucket a volume is uploaded to, and by whose keys.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "base/error.h"
#include "delivery/s3_client.h"

namespace limner::runpod {

struct TargetRequest {
  std::string bucket{}, endpoint{}, region{};  // as given by hand; "": from the variables
  std::filesystem::path env_file{};            // "": ./.env where there is one
  // getenv with "" for what is not set. It wins over the file.
  std::function<std::string(const std::string&)> environment{};
};

// From RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY, RUNPOD_S3_ENDPOINT, RUNPOD_S3_REGION, and
// RUNPOD_S3_BUCKET, RUNPOD_VOLUME_ID or RUNPOD_NETWORK_VOLUME_ID; or else from AWS's own
// (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_ENDPOINT_URL_S3,
// AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION). RunPod's endpoint and its region follow from
// one another (https://s3api-eu-ro-1.runpod.io, EU-RO-1: docs.runpod.io/storage/s3-api). Errors:
// kInvalidArgument naming what is missing, and what read_env_file says.
Result<delivery::S3Options> upload_target(const TargetRequest& request);

}  // namespace limner::runpod
