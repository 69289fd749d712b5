#include "runpod/platform_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

namespace limner::runpod {
namespace {

constexpr std::size_t kMostMessage = 4096;

std::string shown(const LogField& field) {
  return std::visit([](const auto& value) { return fmt::format("{}", value); }, field.value);
}

std::string_view platform_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "DEBUG";
    case LogLevel::kInfo:
      return "INFO";
    case LogLevel::kWarning:
      return "WARN";
    case LogLevel::kError:
      return "ERROR";
  }
  return "INFO";
}

}  // namespace

std::string PlatformLog::render(bool json, LogLevel level, std::string_view message,
                                std::span<const LogField> fields) {
  std::string text(message), job;
  for (const LogField& field : fields) {
    if (field.name == "request_id") {
      job = shown(field);
    } else {
      text += fmt::format(" {}={}", field.name, shown(field));
    }
  }
  if (text.size() > kMostMessage) {
    const std::size_t half = kMostMessage / 2 - 3;
    text = text.substr(0, half) + " ... " + text.substr(text.size() - half);
  }
  if (!json) {
    return fmt::format("{:<5} | {}{}{}\n", platform_name(level), job, job.empty() ? "" : " | ",
                       text);
  }
  const nlohmann::json line = {{"requestId", job.empty() ? nlohmann::json() : nlohmann::json(job)},
                               {"message", text},
                               {"level", platform_name(level)}};
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void PlatformLog::write(LogLevel level, std::string_view message,
                        std::span<const LogField> fields) {
  if (level < level_) return;
  const std::string line = render(json_, level, message, fields);
  const std::lock_guard lock(mutex_);
  // Nobody reads: there is nothing to be done about it.
  [[maybe_unused]] const ssize_t written = ::write(file_, line.data(), line.size());
}

}  // namespace limner::runpod
