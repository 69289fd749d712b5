#include "platform/log_sink.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cmath>
#include <nlohmann/json.hpp>
#include <variant>

namespace limner::platform {
namespace {

using nlohmann::ordered_json;

// A line may have PIPE_BUF bytes; a longer one is written again with its texts cut to so many, and
// at last without its fields.
constexpr std::size_t kLineBytes = PIPE_BUF;
constexpr std::size_t kWholeText = PIPE_BUF;
constexpr std::size_t kCutText = 120;

constexpr std::array<LogLevel, 4> kLevels = {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning,
                                             LogLevel::kError};

// At the start of a character.
std::string cut(std::string_view text, std::size_t most) {
  if (text.size() <= most) return std::string(text);
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xc0) == 0x80) --most;
  return std::string(text.substr(0, most)) + "...";
}

// Broken UTF-8 becomes U+FFFD, control characters \u00XX. With `ascii`, for terminals, so does
// everything that a terminal might obey.
std::string dump(const ordered_json& value, bool ascii) {
  return value.dump(-1, ' ', ascii, ordered_json::error_handler_t::replace);
}

ordered_json to_json(const LogField& field, std::size_t most_text) {
  return std::visit(
      [&](const auto& value) -> ordered_json {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string_view>) {
          return cut(value, most_text);
        } else {
          return value;
        }
      },
      field.value);
}

// Needs no quotes between spaces.
bool is_plain(std::string_view text) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           std::string_view("._-/:@+{}").find(c) != std::string_view::npos;
  };
  return !text.empty() && std::all_of(text.begin(), text.end(), plain);
}

std::string text_of(const ordered_json& value) {
  if (value.is_string() && is_plain(value.get_ref<const std::string&>())) {
    return value.get<std::string>();
  }
  return dump(value, true);
}

std::string json_line(LogLevel level, std::string_view time, std::string_view message,
                      std::span<const LogField> fields, std::size_t most_text) {
  ordered_json line;
  line["time"] = time;
  line["level"] = name(level);
  line["message"] = cut(message, most_text);
  for (const LogField& field : fields) {
    line.emplace(std::string(field.name), to_json(field, most_text));
  }
  return dump(line, false) + "\n";
}

std::string text_line(LogLevel level, std::string_view time, std::string_view message,
                      std::span<const LogField> fields, std::size_t most_text) {
  const std::string said = dump(cut(message, most_text), true);
  std::string line = fmt::format("{} {:<7} {}", time, name(level), said.substr(1, said.size() - 2));
  for (const LogField& field : fields) {
    line += fmt::format("  {}={}", field.name, text_of(to_json(field, most_text)));
  }
  return line + "\n";
}

}  // namespace

std::optional<LogLevel> parse_log_level(std::string_view text) {
  for (const LogLevel level : kLevels) {
    if (text == name(level)) return level;
  }
  return std::nullopt;
}

std::optional<LogFormat> parse_log_format(std::string_view text) {
  if (text == "auto") return LogFormat::kAuto;
  if (text == "json") return LogFormat::kJson;
  if (text == "text") return LogFormat::kText;
  return std::nullopt;
}

std::string to_rfc3339(Millis since_1970) {
  using namespace std::chrono;
  const sys_time<Millis> moment(since_1970);
  const auto day = floor<days>(moment);
  const year_month_day date(day);
  const hh_mm_ss time(moment - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     time.hours().count(), time.minutes().count(), time.seconds().count(),
                     time.subseconds().count());
}

LogSink::LogSink(LogOptions options, const Clock& clock)
    : options_(options),
      json_(options.format == LogFormat::kJson ||
            (options.format == LogFormat::kAuto && isatty(options.file) == 0)),
      clock_(clock) {}

std::string LogSink::render(const Line& line) const {
  const std::string now = to_rfc3339(clock_.wall());
  const auto with = [&](std::span<const LogField> fields, std::size_t most_text) {
    return json_ ? json_line(line.level, now, line.message, fields, most_text)
                 : text_line(line.level, std::string_view(now).substr(11, 12), line.message, fields,
                             most_text);
  };
  std::string text = with(line.fields, kWholeText);
  if (text.size() > kLineBytes) text = with(line.fields, kCutText);
  if (text.size() > kLineBytes) {
    const LogField cut_fields[] = {{"fields_left_out", std::int64_t(line.fields.size())}};
    text = with(cut_fields, kCutText);
  }
  return text;
}

void LogSink::write(LogLevel level, std::string_view message, std::span<const LogField> fields) {
  if (level < options_.level) return;
  try {
    const std::string line = render({level, message, fields});
    const std::scoped_lock lock(mutex_);
    if (const std::uint64_t missing = dropped() - told_; missing > 0 && has_room()) {
      const LogField count[] = {{"dropped", static_cast<std::int64_t>(missing)}};
      const std::uint64_t before = dropped();
      put(render({LogLevel::kWarning, "log lines were dropped", count}));
      if (dropped() == before) told_ = before;
    }
    put(line);
  } catch (const std::exception&) {
    ++dropped_;  // out of memory
  }
}

bool LogSink::has_room() {
  pollfd file{options_.file, POLLOUT, 0};
  const int wait = stuck_ ? 0 : static_cast<int>(options_.patience.count());
  const int ready = poll(&file, 1, wait);
  stuck_ = ready == 0;
  return ready > 0 && (file.revents & POLLOUT) != 0;
}

// A pipe that poll() calls writable has PIPE_BUF bytes of room.
void LogSink::put(const std::string& line) {
  if (!has_room()) {
    ++dropped_;
    return;
  }
  const std::string bytes = torn_ ? "\n" + line : line;
  const std::string_view whole = std::string_view(bytes).substr(0, kLineBytes);
  ssize_t written = -1;
  do {
    written = ::write(options_.file, whole.data(), whole.size());
  } while (written < 0 && errno == EINTR);
  if (written > 0) torn_ = static_cast<std::size_t>(written) < bytes.size();
  if (written < static_cast<ssize_t>(bytes.size())) ++dropped_;
}

}  // namespace limner::platform
