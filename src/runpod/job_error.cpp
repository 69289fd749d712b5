#include "runpod/job_error.h"

#include <fmt/format.h>

#include <ctime>

namespace limner::runpod {

using nlohmann::json;

std::string_view error_type(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNotFound:
    case ErrorCode::kUnsupported:
    case ErrorCode::kBlocked:
      return "validation";
    case ErrorCode::kInvalidModel:
      return "initialization";
    case ErrorCode::kOutOfMemory:
    case ErrorCode::kIo:
    case ErrorCode::kCancelled:
    case ErrorCode::kDeadlineExceeded:
    case ErrorCode::kUnavailable:
    case ErrorCode::kUnauthenticated:
    case ErrorCode::kPermissionDenied:
    case ErrorCode::kInternal:
      return "runtime";
  }
  return "runtime";
}

std::string timestamp(platform::Millis wall) {
  const std::time_t seconds = wall.count() / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                     wall.count() % 1000);
}

json error_object(const Error& error, const PlatformSettings& settings, json details,
                  platform::Millis wall) {
  return {{"status", "error"},
          {"error", error.message},
          {"code", name(error.code)},
          {"error_type", error_type(error.code)},
          {"message", error.message},
          {"error_message", error.message},
          {"details", std::move(details)},
          {"timestamp", timestamp(wall)},
          {"retryable", error.retryable},
          {"hostname", settings.hostname},
          {"worker_id", settings.worker_id},
          {"limner_version", LIMNER_VERSION}};
}

std::string error_text(const Error& error, const PlatformSettings& settings, json details,
                       platform::Millis wall) {
  return error_object(error, settings, std::move(details), wall)
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace limner::runpod
