#include "runpod/storage_environment.h"

#include <fmt/format.h>

namespace limner::runpod {

Result<platform::DeliveryConfig> storage_config(platform::DeliveryConfig config,
                                                const Environment& environment) {
  const auto get = [&](const char* name) {
    const auto found = environment.find(name);
    return found == environment.end() ? std::string() : found->second;
  };
  const std::string url = get("SUPABASE_URL"), bucket = get("SUPABASE_BUCKET");
  std::string key = get("SUPABASE_SERVICE_ROLE_KEY");
  if (key.empty()) key = get("SUPABASE_KEY");
  if (url.empty() && key.empty() && bucket.empty()) return config;
  const char* missing = url.empty()      ? "SUPABASE_URL"
                        : key.empty()    ? "SUPABASE_SERVICE_ROLE_KEY (or SUPABASE_KEY)"
                        : bucket.empty() ? "SUPABASE_BUCKET"
                                         : nullptr;
  if (missing != nullptr) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("[storage] {} is not set; Supabase Storage wants SUPABASE_URL, "
                             "SUPABASE_SERVICE_ROLE_KEY and SUPABASE_BUCKET, all three",
                             missing)};
  }
  config.store = "supabase";
  config.supabase_url = url;
  config.supabase_key.value = key;
  config.bucket = bucket;
  return config;
}

}  // namespace limner::runpod
