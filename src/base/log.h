// Log: where a part of the service says what it did. The sink (platform/log_sink.h) is handed in.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <variant>

namespace limner {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarning, kError };

std::string_view name(LogLevel level);  // "debug", "info", "warning", "error"

struct LogField {
  std::string_view name;
  std::variant<std::string_view, std::int64_t, double, bool> value;
};

// Safe to call from many threads; never throws and never blocks for long. No secrets (keys, signed
// URLs, webhook secrets) and no prompts go into a log.
class Log {
 public:
  virtual ~Log() = default;
  // `message` is one short sentence, the same for every occurrence; what differs goes into fields
  // named as in the HTTP API: request_id, account, model, worker, error, ...
  virtual void write(LogLevel level, std::string_view message,
                     std::span<const LogField> fields) = 0;

  void debug(std::string_view message, std::initializer_list<LogField> fields = {}) {
    write(LogLevel::kDebug, message, {fields.begin(), fields.size()});
  }
  void info(std::string_view message, std::initializer_list<LogField> fields = {}) {
    write(LogLevel::kInfo, message, {fields.begin(), fields.size()});
  }
  void warning(std::string_view message, std::initializer_list<LogField> fields = {}) {
    write(LogLevel::kWarning, message, {fields.begin(), fields.size()});
  }
  void error(std::string_view message, std::initializer_list<LogField> fields = {}) {
    write(LogLevel::kError, message, {fields.begin(), fields.size()});
  }
};

// Says nothing: for tests and one-off commands.
class NoLog final : public Log {
 public:
  void write(LogLevel, std::string_view, std::span<const LogField>) override {}
};

}  // namespace limner
