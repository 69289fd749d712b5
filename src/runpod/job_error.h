// What a client is told of a job that failed: one object, with the names that clients of several
// kinds of workers look for.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"
#include "platform/clock.h"
#include "runpod/control_plane.h"

namespace limner::runpod {

// "validation": the input is wrong; "initialization": the model cannot be had; "runtime": all else.
std::string_view error_type(ErrorCode code);

// {"status": "error", "error", "code", "error_type", "message", "error_message", "details",
// "timestamp", "retryable", "hostname", "worker_id", "limner_version"}: `error`, `message` and
// `error_message` are the same sentence, `code` is the error's own name, `timestamp` RFC 3339 UTC.
// `details` is what JobDrawer::state() tells.
nlohmann::json error_object(const Error& error, const PlatformSettings& settings,
                            nlohmann::json details, platform::Millis wall);

// The object as the text that the platform takes for an error: the SDK sends one such for an
// exception. Broken UTF-8 in a message becomes U+FFFD.
std::string error_text(const Error& error, const PlatformSettings& settings, nlohmann::json details,
                       platform::Millis wall);

// "2026-11-21T18:00:00.000Z".
std::string timestamp(platform::Millis wall);

}  // namespace limner::runpod
