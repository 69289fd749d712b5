#include "cli/config_options.h"

namespace limner::cli {

void add_config_options(CLI::App& command, ConfigOptions& options, bool server) {
  command.add_option("--config", options.file,
                     "File of settings; default: $LIMNER_CONFIG, else ./limner.toml");
  command.add_option("--data-dir", options.data_dir,
                     "Folder of the service: database, pictures, drop-in folders");
  if (!server) return;
  command.add_option("--host", options.host, "Address to listen on");
  command.add_option("--port", options.port, "Port to listen on; 0 takes a free one");
}

platform::ConfigSources config_sources(const ConfigOptions& options) {
  platform::ConfigSources sources;
  const auto add = [&](const char* option, const char* setting, const std::string& value) {
    if (!value.empty()) sources.flags.push_back({option, setting, value});
  };
  add("--data-dir", "data_dir", options.data_dir);
  add("--host", "server.host", options.host);
  add("--port", "server.port", options.port);
  sources.environment = platform::process_environment();
  sources.file = options.file.empty() ? platform::usual_config_file(sources.environment)
                                      : std::filesystem::path(options.file);
  return sources;
}

}  // namespace limner::cli
