// Filling a ServiceConfig: options of the command line win over variables of the environment, they
// over limner.toml, it over the defaults.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "platform/config/service_config.h"

namespace limner::platform {

struct ConfigFlag {
  std::string option;   // as typed: "--port"
  std::string setting;  // "server.port"
  std::string value;
};

struct ConfigSources {
  std::vector<ConfigFlag> flags{};
  std::map<std::string, std::string> environment{};  // all of it
  std::optional<std::filesystem::path> file{};       // must be there; absent: no file is read
};

struct ConfigProblem {
  std::string place;  // "limner.toml:12:8", "LIMNER_SERVER_PORT", "--port", "server.tls_key"
  std::string message;
};

// A setting as it came out.
struct ShownSetting {
  std::string name;
  std::string value;   // as in limner.toml; a secret's is masked
  std::string source;  // "default", "limner.toml:12", "LIMNER_SERVER_PORT", "--port"
};

struct LoadedConfig {
  ServiceConfig config{};
  std::vector<ShownSetting> settings{};  // all, in their order
  // What is odd but not wrong: LIMNER_* variables that are none of ours, with a near name.
  std::vector<ConfigProblem> warnings{};
};

// A config that is good where `problems` is empty; every problem of every source at once.
struct CheckedConfig {
  LoadedConfig loaded{};
  std::vector<ConfigProblem> problems{};
};

CheckedConfig check_config(const ConfigSources& sources);

// Errors: kInvalidArgument with the first problem and how many more there are.
Result<LoadedConfig> load_config(const ConfigSources& sources);

// The environment of this process.
std::map<std::string, std::string> process_environment();

// What is read when nobody named a file: $LIMNER_CONFIG, else ./limner.toml where it is there.
std::optional<std::filesystem::path> usual_config_file(
    const std::map<std::string, std::string>& environment);

// docs/limner.toml: every setting with its sentence, variable and default, commented out.
std::string documented_config();

}  // namespace limner::platform
