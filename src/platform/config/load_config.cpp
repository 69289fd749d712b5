#include "platform/config/load_config.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <sstream>

#include "base/suggest.h"
#include "platform/config/setting_value.h"
#include "platform/config/settings.h"
#include "platform/config/toml_file.h"

namespace limner::platform {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kLargestFile = std::uintmax_t{1} << 20;
constexpr std::uintmax_t kLargestSecret = 4096;

// LIMNER_* variables that others than the service's settings read.
constexpr std::array<std::string_view, 6> kOtherVariables = {
    "LIMNER_CONFIG",   "LIMNER_CACHE",     "LIMNER_VOLUME",
    "LIMNER_TEMPLATE", "LIMNER_FUZZ_SEED", "LIMNER_FUZZ_SECONDS"};

std::string read_whole(const fs::path& path, std::uintmax_t most) {
  std::ifstream file(path, std::ios::binary);
  std::error_code error;
  if (!file || fs::is_directory(path, error)) {
    throw Failure(ErrorCode::kIo, fmt::format("cannot read the file {}", path.string()));
  }
  std::string text(static_cast<std::size_t>(most) + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (file.bad()) {
    throw Failure(ErrorCode::kIo, fmt::format("cannot read the file {}", path.string()));
  }
  if (text.size() > most) {
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("the file {} is larger than {} bytes", path.string(), most));
  }
  return text;
}

std::string read_secret(const fs::path& path) {
  std::string text = read_whole(path, kLargestSecret);
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  if (text.empty()) {
    throw Failure(ErrorCode::kInvalidArgument, fmt::format("the file {} is empty", path.string()));
  }
  return text;
}

bool fits(const Setting& setting, TomlType type) {
  if (is_list(setting)) return type == TomlType::kTexts;
  const bool whole = std::holds_alternative<FieldOf<std::int64_t>>(setting.field) ||
                     std::holds_alternative<FieldOf<Seconds>>(setting.field) ||
                     std::holds_alternative<FieldOf<Days>>(setting.field);
  if (whole) return type == TomlType::kInteger;
  if (std::holds_alternative<FieldOf<bool>>(setting.field)) return type == TomlType::kBoolean;
  if (std::holds_alternative<FieldOf<double>>(setting.field)) {
    return type == TomlType::kNumber || type == TomlType::kInteger;
  }
  if (std::holds_alternative<FieldOf<Bytes>>(setting.field)) {
    return type == TomlType::kText || type == TomlType::kInteger;
  }
  return type == TomlType::kText;
}

// LIMNER_PORT is short for LIMNER_SERVER_PORT rather than near to LIMNER_LORAS.
std::string meant(const std::string& variable, const std::vector<std::string>& known) {
  const std::string ending = variable.substr(variable.find('_'));
  const auto longer = std::find_if(known.begin(), known.end(),
                                   [&](const std::string& name) { return name.ends_with(ending); });
  if (longer != known.end()) return fmt::format(" (did you mean {}?)", *longer);
  return did_you_mean(variable, known);
}

// Applies one source after the other to the defaults, and keeps every problem.
class Loader {
 public:
  Loader() : sources_(settings().size(), "default") {}

  void file(const fs::path& path);
  void environment(const std::map<std::string, std::string>& variables);
  void flags(const std::vector<ConfigFlag>& flags);
  void check_together();
  CheckedConfig result() &&;

 private:
  struct Place {
    std::string problem;  // "limner.toml:12:8"
    std::string source;   // "limner.toml:12"
  };
  void value(const TomlValue& value, const Place& place);
  void unknown(const TomlValue& value, const Place& place);
  void set(std::size_t index, const Written& value, const Place& place);
  void set_secret_file(std::size_t index, const std::string& path, const Place& place);
  void problem(std::string place, std::string message) {
    checked_.problems.push_back({std::move(place), std::move(message)});
  }
  ServiceConfig& config() { return checked_.loaded.config; }
  const std::string& source_of(std::string_view name) const;

  CheckedConfig checked_{};
  std::vector<std::string> sources_;
};

std::vector<std::string> setting_names() {
  std::vector<std::string> names;
  for (const Setting& setting : settings()) {
    names.push_back(setting.secret() ? file_setting(setting) : setting.name);
  }
  return names;
}

std::size_t index_of(std::string_view name) {
  const auto all = settings();
  const auto place =
      std::find_if(all.begin(), all.end(), [&](const Setting& one) { return one.name == name; });
  return static_cast<std::size_t>(place - all.begin());
}

bool is_group(std::string_view name) {
  const auto groups = setting_groups();
  return std::any_of(groups.begin(), groups.end(), [&](const SettingGroup& group) {
    return group.name == name || group.name.starts_with(std::string(name) + ".");
  });
}

void Loader::set(std::size_t index, const Written& value, const Place& place) {
  const Setting& setting = settings()[index];
  try {
    store(setting, value, config());
    sources_[index] = place.source;
  } catch (const Failure& failure) {
    problem(place.problem,
            setting.name + ": " + (setting.secret() ? "not a text in UTF-8" : failure.what()));
  }
}

void Loader::set_secret_file(std::size_t index, const std::string& path, const Place& place) {
  if (path.empty()) return;
  try {
    set(index, {read_secret(path)}, place);
  } catch (const Failure& failure) {
    problem(place.problem, settings()[index].name + ": " + failure.what());
  }
}

void Loader::unknown(const TomlValue& value, const Place& place) {
  static const std::vector<std::string> names = setting_names();
  if (value.type != TomlType::kTable) {
    return problem(place.problem, fmt::format("there is no setting {}{}", value.name,
                                              did_you_mean(value.name, names)));
  }
  std::vector<std::string> groups;
  for (const SettingGroup& group : setting_groups()) groups.push_back(group.name);
  problem(place.problem,
          fmt::format("there is no table [{}]{}", value.name, did_you_mean(value.name, groups)));
}

void Loader::value(const TomlValue& value, const Place& place) {
  const auto all = settings();
  if (value.type == TomlType::kTable && is_group(value.name)) return;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Setting& setting = all[i];
    if (setting.secret() && value.name == setting.name) {
      return problem(place.problem,
                     fmt::format("{}: a secret does not belong into this file; set the variable "
                                 "{}, or {} to the path of a file that holds it",
                                 value.name, setting.environment, file_setting(setting)));
    }
    if (setting.secret() && value.name == file_setting(setting)) {
      if (value.type == TomlType::kText) return set_secret_file(i, value.texts[0], place);
      return problem(place.problem, fmt::format("{}: want a text, got {}", value.name, value.kind));
    }
    if (value.name != setting.name) continue;
    if (fits(setting, value.type)) return set(i, value.texts, place);
    return problem(place.problem,
                   fmt::format("{}: want {}, got {}", value.name, wanted(setting), value.kind));
  }
  unknown(value, place);
}

void Loader::file(const fs::path& path) {
  try {
    const TomlFile toml = read_toml(read_whole(path, kLargestFile)).value_or_throw();
    const auto place_of = [&](const auto& at) {
      const std::string line = fmt::format("{}:{}", path.string(), at.line);
      return Place{fmt::format("{}:{}", line, at.column), line};
    };
    if (toml.problem) return problem(place_of(*toml.problem).problem, toml.problem->message);
    std::string unknown_table = "\n";  // what lies in it is not spoken of again
    for (const TomlValue& one : toml.values) {
      if (one.name.starts_with(unknown_table)) continue;
      if (one.type == TomlType::kTable && !is_group(one.name)) unknown_table = one.name + ".";
      value(one, place_of(one));
    }
  } catch (const Failure& failure) {
    problem(path.string(), failure.what());
  }
}

void Loader::environment(const std::map<std::string, std::string>& variables) {
  const auto find = [&](const std::string& name) -> const std::string* {
    const auto place = variables.find(name);
    return place == variables.end() || place->second.empty() ? nullptr : &place->second;
  };
  const auto all = settings();
  std::vector<std::string> known(kOtherVariables.begin(), kOtherVariables.end());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::string& name = all[i].environment;
    known.push_back(name);
    const std::string* const text = find(name);
    if (all[i].secret()) {
      const std::string in_file = file_variable(all[i]);
      known.push_back(in_file);
      const std::string* const path = find(in_file);
      if (path != nullptr && text != nullptr) {
        problem(name, fmt::format("{} is set too: want one of the two", in_file));
      } else if (path != nullptr) {
        set_secret_file(i, *path, {in_file, in_file});
      }
    }
    if (text != nullptr) set(i, split(all[i], *text), {name, name});
  }
  for (const auto& [name, text] : variables) {
    if (!name.starts_with("LIMNER_") || std::find(known.begin(), known.end(), name) != known.end())
      continue;
    checked_.loaded.warnings.push_back(
        {name, "is no variable that limner reads" + meant(name, known)});
  }
}

void Loader::flags(const std::vector<ConfigFlag>& flags) {
  for (const ConfigFlag& flag : flags) {
    const std::size_t index = index_of(flag.setting);
    LIMNER_CHECK(index < settings().size(), "an option for a setting that is not there");
    set(index, split(settings()[index], flag.value), {flag.option, flag.option});
  }
}

const std::string& Loader::source_of(std::string_view name) const {
  return sources_[index_of(name)];
}

void Loader::check_together() {
  const auto need = [&](bool there, std::string_view setting, std::string_view why) {
    if (there) return;
    const Setting& missing = settings()[index_of(setting)];
    problem(missing.name,
            fmt::format("is not set, and {} wants it (variable {})", why, missing.environment));
  };
  const auto readable = [&](const fs::path& path, std::string_view setting) {
    if (path.empty() || access(path.c_str(), R_OK) == 0) return;
    problem(source_of(setting), fmt::format("{}: cannot read {}", setting, path.string()));
  };
  const ServerConfig& server = config().server;
  need(server.tls_key.empty() || !server.tls_certificate.empty(), "server.tls_certificate",
       "server.tls_key");
  need(server.tls_certificate.empty() || !server.tls_key.empty(), "server.tls_key",
       "server.tls_certificate");
  readable(server.tls_certificate, "server.tls_certificate");
  readable(server.tls_key, "server.tls_key");

  const DeliveryConfig& delivery = config().delivery;
  if (delivery.store == "s3") {
    const std::string_view why = "delivery.store = \"s3\"";
    need(!delivery.endpoint.empty(), "delivery.endpoint", why);
    need(!delivery.access_key_id.value.empty(), "delivery.access_key_id", why);
    need(!delivery.secret_access_key.value.empty(), "delivery.secret_access_key", why);
  }
  if (delivery.store == "supabase") {
    const std::string_view why = "delivery.store = \"supabase\"";
    need(!delivery.supabase_url.empty(), "delivery.supabase_url", why);
    need(!delivery.bucket.empty(), "delivery.bucket", why);
    need(!delivery.supabase_key.value.empty(), "delivery.supabase_key", why);
  }
}

CheckedConfig Loader::result() && {
  const auto all = settings();
  for (std::size_t i = 0; i < all.size(); ++i) {
    checked_.loaded.settings.push_back({all[i].name, shown(all[i], config()), sources_[i]});
  }
  return std::move(checked_);
}

}  // namespace

CheckedConfig check_config(const ConfigSources& sources) {
  Loader loader;
  if (sources.file) loader.file(*sources.file);
  loader.environment(sources.environment);
  loader.flags(sources.flags);
  loader.check_together();
  return std::move(loader).result();
}

Result<LoadedConfig> load_config(const ConfigSources& sources) {
  CheckedConfig checked = check_config(sources);
  if (checked.problems.empty()) return std::move(checked.loaded);
  const ConfigProblem& first = checked.problems.front();
  const std::size_t more = checked.problems.size() - 1;
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: {}{}", first.place, first.message,
                           more == 0 ? ""
                                     : fmt::format(" (and {} more problem{}: limner config check)",
                                                   more, more == 1 ? "" : "s"))};
}

std::map<std::string, std::string> process_environment() {
  std::map<std::string, std::string> variables;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const auto equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    variables.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return variables;
}

std::optional<fs::path> usual_config_file(const std::map<std::string, std::string>& environment) {
  const auto named = environment.find("LIMNER_CONFIG");
  if (named != environment.end() && !named->second.empty()) return named->second;
  std::error_code error;
  if (fs::exists("limner.toml", error)) return "limner.toml";
  return std::nullopt;
}

}  // namespace limner::platform
