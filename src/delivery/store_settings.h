// store_settings: what the configuration's [delivery] says of a bucket, for the clients that open
// it.
#pragma once

#include "base/error.h"
#include "delivery/s3_client.h"
#include "delivery/supabase_client.h"
#include "platform/config/service_config.h"

namespace limner::delivery {

// Whether any of the three settings is there that RunPod's workers know as BUCKET_ENDPOINT_URL (the
// bucket in it), BUCKET_ACCESS_KEY_ID and BUCKET_SECRET_ACCESS_KEY.
bool names_s3(const platform::DeliveryConfig& config);
// Errors: kInvalidArgument naming those of the three that are missing, or an endpoint that is no
// URL.
Result<S3Options> s3_options(const platform::DeliveryConfig& config);

SupabaseOptions supabase_options(const platform::DeliveryConfig& config);

}  // namespace limner::delivery
