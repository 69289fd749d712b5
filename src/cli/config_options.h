// The options that override settings of the service, and where its configuration comes from.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "base/error.h"
#include "platform/config/load_config.h"

namespace limner::cli {

struct ConfigOptions {
  std::string file;      // --config; "": $LIMNER_CONFIG, else ./limner.toml where it is there
  std::string data_dir;  // and the rest: "" where not given
  std::string host;
  std::string port;
};

// --config and --data-dir; with `server`, --host and --port too.
void add_config_options(CLI::App& command, ConfigOptions& options, bool server);

// The options, this process's environment and the file.
platform::ConfigSources config_sources(const ConfigOptions& options);

}  // namespace limner::cli
