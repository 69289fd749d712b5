// The variables by which workers of RunPod are told of their storage.
#pragma once

#include "base/error.h"
#include "platform/config/service_config.h"
#include "runpod/control_plane.h"

namespace limner::runpod {

// Supabase Storage where SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY (or SUPABASE_KEY) and
// SUPABASE_BUCKET are set, in place of what `config` says; else `config`, which has read the
// BUCKET_* variables. Errors: kInvalidArgument naming the one of the three that is missing.
Result<platform::DeliveryConfig> storage_config(platform::DeliveryConfig config,
                                                const Environment& environment);

}  // namespace limner::runpod
