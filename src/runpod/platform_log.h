// PlatformLog: lines as the platform reads them: one JSON object with requestId, message and level
// on an endpoint, LEVEL | job | text elsewhere.
#pragma once

#include <mutex>
#include <string>

#include "base/log.h"

namespace limner::runpod {

// Safe to call from many threads. The process ignores SIGPIPE.
class PlatformLog final : public Log {
 public:
  // `file`: a descriptor, which stays the caller's.
  PlatformLog(bool json, LogLevel level, int file) : json_(json), level_(level), file_(file) {}
  void write(LogLevel level, std::string_view message, std::span<const LogField> fields) override;

  // The line, with its end; a message of more than 4096 bytes loses its middle.
  static std::string render(bool json, LogLevel level, std::string_view message,
                            std::span<const LogField> fields);

 private:
  const bool json_;
  const LogLevel level_;
  const int file_;
  std::mutex mutex_;
};

}  // namespace limner::runpod
