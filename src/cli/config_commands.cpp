// `limner config show`, `check` and `example`.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/config_options.h"

namespace limner::cli {
namespace {

using nlohmann::json;
using platform::CheckedConfig;
using platform::ConfigProblem;
using platform::ConfigSources;
using platform::LoadedConfig;
using platform::ShownSetting;

// Paths in messages may hold anything: broken UTF-8 is replaced, never printed raw.
std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

json file_json(const ConfigSources& sources) {
  return sources.file ? json(sources.file->string()) : json();
}

json problems_json(const std::vector<ConfigProblem>& problems) {
  json all = json::array();
  for (const ConfigProblem& problem : problems) {
    all.push_back({{"place", problem.place}, {"message", problem.message}});
  }
  return all;
}

std::string counted(std::size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

void warn(const std::vector<ConfigProblem>& warnings, const Console& console) {
  for (const ConfigProblem& warning : warnings) {
    console.warning(fmt::format("{} {}", warning.place, warning.message));
  }
}

int show(const ConfigSources& sources, const Console& console) {
  const auto loaded = platform::load_config(sources);
  if (!loaded.ok()) return console.fail(loaded.error());
  if (console.json()) {
    json settings = json::array();
    // Values are written as in TOML, which for these types is JSON as well.
    for (const ShownSetting& setting : loaded->settings) {
      settings.push_back({{"name", setting.name},
                          {"value", json::parse(setting.value)},
                          {"source", setting.source}});
    }
    console.result(dump({{"file", file_json(sources)}, {"settings", settings}}));
    return 0;
  }
  warn(loaded->warnings, console);
  std::size_t name_width = 0, value_width = 0;
  for (const ShownSetting& setting : loaded->settings) {
    name_width = std::max(name_width, setting.name.size());
    if (setting.value.size() <= 40) value_width = std::max(value_width, setting.value.size());
  }
  for (const ShownSetting& setting : loaded->settings) {
    console.result(fmt::format("{:<{}}  {:<{}}  {}", setting.name, name_width, setting.value,
                               value_width, setting.source));
  }
  return 0;
}

int check(const ConfigSources& sources, const Console& console) {
  const CheckedConfig checked = platform::check_config(sources);
  const bool good = checked.problems.empty();
  if (console.json()) {
    console.result(dump({{"file", file_json(sources)},
                         {"problems", problems_json(checked.problems)},
                         {"warnings", problems_json(checked.loaded.warnings)}}));
    return good ? 0 : 1;
  }
  warn(checked.loaded.warnings, console);
  for (const ConfigProblem& problem : checked.problems) {
    console.result(fmt::format("{}: {}", problem.place, problem.message));
  }
  const std::string file = sources.file ? sources.file->string() : "no file";
  console.result(good ? fmt::format("{}, variables and options: no problems", file)
                      : counted(checked.problems.size(), "problem"));
  return good ? 0 : 1;
}

using Act = int (*)(const ConfigSources&, const Console&);

void set_up(CLI::App* command, Context& context, Act act) {
  auto options = std::make_shared<ConfigOptions>();
  add_config_options(*command, *options, true);
  add_console_options(*command, context);
  command->callback([options, act, &context] {
    context.exit_code = act(config_sources(*options), context.console());
  });
}

}  // namespace

void add_config_commands(CLI::App& app, Context& context) {
  CLI::App* config = app.add_subcommand("config", "Show and check the settings of the service");
  config->require_subcommand(1);
  config->footer("Example:\n  limner config check --config limner.toml");

  CLI::App* command = config->add_subcommand(
      "show", "Every setting, its value and where that came from; secrets are masked");
  command->footer("Example:\n  limner config show --port 9000");
  set_up(command, context, show);

  command = config->add_subcommand(
      "check", "Look for mistakes in the file, the variables and the options; all at once");
  command->footer("Example:\n  limner config check --config limner.toml");
  set_up(command, context, check);

  command = config->add_subcommand("example", "Print a limner.toml with every setting explained");
  command->footer("Example:\n  limner config example > limner.toml");
  command->callback([&context] {
    std::string text = platform::documented_config();
    text.pop_back();  // result() ends the line
    context.console().result(text);
  });
}

}  // namespace limner::cli
