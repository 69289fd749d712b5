// The data folder of a service, as commands beside a running server use it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "cli/config_options.h"
#include "cli/console.h"
#include "platform/accounts/key_store.h"
#include "platform/clock.h"

namespace limner::cli {

// limner.db of the folder that --data-dir names, or else the configuration. `make`: the folder is
// made where there is none; without it, kNotFound where there is no database.
Result<std::filesystem::path> service_database(const ConfigOptions& options, bool make);

// Opens the keys and accounts of that database for `act`, and gives its exit code, or that of the
// error, which is printed.
int with_key_store(const ConfigOptions& options, bool make, const Console& console,
                   const std::function<int(platform::KeyStore&)>& act);

// Who asks, for the audit log: "cli:" and the name of the user.
std::string command_line_actor();

// "90d", "24h", "30m" or "45s"; above 0, and at most 100 years.
Result<platform::Millis> parse_duration(std::string_view text);

// "2026-11-21 14:53", or "-" for 0. Milliseconds since 1970 (UTC).
std::string shown_time(std::int64_t milliseconds);

}  // namespace limner::cli
