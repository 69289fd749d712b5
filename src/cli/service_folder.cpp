#include "cli/service_folder.h"

#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <charconv>

#include "base/quote.h"
#include "platform/data_folder.h"
#include "platform/log_sink.h"

namespace limner::cli {

namespace fs = std::filesystem;

Result<fs::path> service_database(const ConfigOptions& options, bool make) {
  fs::path folder = options.data_dir;
  if (folder.empty()) {
    const auto loaded = platform::load_config(config_sources(options));
    if (!loaded.ok()) return loaded.error();
    folder = loaded->config.data_dir;
  }
  const fs::path file = folder / "limner.db";
  std::error_code error;
  try {
    if (make) platform::make_data_folder(folder);
  } catch (const Failure& failure) {
    return failure.error();
  }
  if (!make && !fs::exists(file, error)) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("there is no limner.db in the data folder {}: name the folder of the "
                             "service with --data-dir",
                             quote(folder.string()))};
  }
  return file;
}

int with_key_store(const ConfigOptions& options, bool make, const Console& console,
                   const std::function<int(platform::KeyStore&)>& act) {
  const auto file = service_database(options, make);
  if (!file.ok()) return console.fail(file.error());
  const platform::SystemClock clock;
  const auto store = platform::KeyStore::open(*file, clock);
  return store.ok() ? act(**store) : console.fail(store.error());
}

std::string command_line_actor() {
  const passwd* user = getpwuid(geteuid());
  return user ? fmt::format("cli:{}", user->pw_name) : fmt::format("cli:{}", geteuid());
}

Result<platform::Millis> parse_duration(std::string_view text) {
  constexpr std::int64_t kCentury = 36'525LL * 24 * 3600;
  std::int64_t count = 0, unit = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error == std::errc() && end + 1 == text.data() + text.size()) {
    unit = *end == 'd' ? 86'400 : *end == 'h' ? 3600 : *end == 'm' ? 60 : *end == 's' ? 1 : 0;
  }
  if (unit == 0 || count <= 0 || count > kCentury / unit) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("want a duration such as 90d, 24h, 30m or 45s, of at most 100 years; "
                             "got {}",
                             quote(text))};
  }
  return platform::Millis{count * unit * 1000};
}

std::string shown_time(std::int64_t milliseconds) {
  if (milliseconds == 0) return "-";
  std::string time = platform::to_rfc3339(platform::Millis{milliseconds}).substr(0, 16);
  time[10] = ' ';
  return time;
}

}  // namespace limner::cli
