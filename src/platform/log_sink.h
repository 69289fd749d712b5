// LogSink: the Log of a running service: one line an event on a file descriptor.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/log.h"
#include "platform/clock.h"

namespace limner::platform {

enum class LogFormat {
  kAuto,  // kText on a terminal, kJson elsewhere
  kJson,  // {"time":"2026-11-21T14:53:52.125Z","level":"info","message":"...","request_id":"..."}
  kText,  // 14:53:52.125 info  message  request_id=...
};

struct LogOptions {
  LogLevel level = LogLevel::kInfo;  // and above
  LogFormat format = LogFormat::kAuto;
  int file = 2;  // standard error; stays the caller's to close
  // That one write may wait for a reader. A reader found stuck is not waited for again until it has
  // taken a line.
  std::chrono::milliseconds patience{20};
};

// "debug", "info", "warning", "error"; nothing for any other text. And for "auto", "json", "text".
std::optional<LogLevel> parse_log_level(std::string_view text);
std::optional<LogFormat> parse_log_format(std::string_view text);

// "2026-11-21T14:53:52.125Z" (RFC 3339, UTC); the text form of a log takes its time of day.
std::string to_rfc3339(Millis since_1970);

// Safe to call from many threads. Every line is written whole with one write() of at most PIPE_BUF
// bytes, so that neither lines of several processes on one pipe mix nor a reader that hangs can
// hold the service up: what does not fit or is not taken in time is cut or dropped, and counted;
// the next line that is written is preceded by one that says how many are missing.
//
// Lines go out in the caller's thread: a crash loses none. The process ignores SIGPIPE.
class LogSink final : public Log {
 public:
  // `clock` must outlive the sink.
  LogSink(LogOptions options, const Clock& clock);

  void write(LogLevel level, std::string_view message, std::span<const LogField> fields) override;

  std::uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  struct Line {
    LogLevel level;
    std::string_view message;
    std::span<const LogField> fields;
  };
  std::string render(const Line& line) const;  // with its end
  void put(const std::string& line);           // by mutex_
  bool has_room();                             // by mutex_

  const LogOptions options_;
  const bool json_;
  const Clock& clock_;
  std::atomic<std::uint64_t> dropped_{0};
  std::mutex mutex_;
  std::uint64_t told_ = 0;  // by mutex_: dropped lines that a line has spoken of
  bool stuck_ = false;      // by mutex_: the reader took nothing the last time
  bool torn_ = false;       // by mutex_: half a line stands at the end
};

}  // namespace limner::platform
