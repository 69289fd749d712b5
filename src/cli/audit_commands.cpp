// `limner audit list` and `verify`; they only read, and work while the server runs.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/service_folder.h"
#include "platform/audit/audit_log.h"
#include "platform/log_sink.h"

namespace limner::cli {
namespace {

using nlohmann::json;
using platform::AuditEntry;

struct Options {
  ConfigOptions config;
  std::size_t limit = 50;
  std::int64_t before = INT64_MAX;
  std::string anchor;
};

// Whoever could change the table could also have hidden commands to the terminal in it.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return text;
}

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

int list(const Options& options, const Console& console) {
  const auto file = service_database(options.config, false);
  if (!file.ok()) return console.fail(file.error());
  const auto entries = platform::list_audit(*file, options.before, options.limit);
  if (!entries.ok()) return console.fail(entries.error());
  json all = json::array();
  for (const AuditEntry& entry : *entries) {
    const std::string time = platform::to_rfc3339(platform::Millis{entry.at});
    if (console.json()) {
      all.push_back({{"id", entry.id},
                     {"at", time},
                     {"actor", entry.act.actor},
                     {"action", entry.act.action},
                     {"subject", entry.act.subject},
                     {"detail", entry.act.detail},
                     {"hash", entry.hash}});
      continue;
    }
    console.result(
        printable(fmt::format("{:>6}  {}  {:<24} {:<16} {:<24} {}", entry.id, time, entry.act.actor,
                              entry.act.action, entry.act.subject, entry.act.detail)));
  }
  if (console.json()) console.result(dump({{"entries", all}}));
  return 0;
}

int verify(const Options& options, const Console& console) {
  std::optional<platform::AuditAnchor> anchor;
  if (!options.anchor.empty()) {
    const auto parsed = platform::parse_audit_anchor(options.anchor);
    if (!parsed.ok()) return console.fail(parsed.error());
    anchor = *parsed;
  }
  const auto file = service_database(options.config, false);
  if (!file.ok()) return console.fail(file.error());
  const auto verdict = platform::verify_audit(*file, anchor);
  if (!verdict.ok()) return console.fail(verdict.error());
  const bool whole = verdict->problem.empty();
  if (console.json()) {
    console.result(dump({{"whole", whole},
                         {"entries", verdict->head.entries},
                         {"anchor", to_string(verdict->head)},
                         {"problem", whole ? json() : json(verdict->problem)}}));
  } else if (whole) {
    console.result(fmt::format("whole: {} entr{}", verdict->head.entries,
                               verdict->head.entries == 1 ? "y" : "ies"));
    console.result(fmt::format("anchor {}", to_string(verdict->head)));
  } else {
    console.result(fmt::format("broken: {}", verdict->problem));
  }
  return whole ? 0 : 1;
}

CLI::App* add(CLI::App& parent, Context& context, const char* name, const char* what,
              const std::shared_ptr<Options>& options, int (*act)(const Options&, const Console&)) {
  CLI::App* command = parent.add_subcommand(name, what);
  add_config_options(*command, options->config, false);
  add_console_options(*command, context);
  command->callback(
      [options, act, &context] { context.exit_code = act(*options, context.console()); });
  return command;
}

}  // namespace

void add_audit_commands(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "audit", "Read the log of changes and refusals, and check that it is whole");
  command->require_subcommand(1);
  command->footer("Example:\n  limner audit verify --data-dir limner-data");

  auto options = std::make_shared<Options>();
  CLI::App* one = add(*command, context, "list", "Entries, newest first", options, list);
  one->add_option("--limit", options->limit, "How many")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  one->add_option("--before", options->before, "Only entries before the one with this number")
      ->default_str("the newest");
  one->footer("Example:\n  limner audit list --data-dir limner-data --limit 20");

  options = std::make_shared<Options>();
  one = add(*command, context, "verify",
            "Whether every entry is there and as it was written; exit code 1 if not", options,
            verify);
  one->add_option("--anchor", options->anchor,
                  "An anchor that an earlier run printed: the log must still begin with it");
  one->footer(
      "An anchor kept on another machine also finds a log that was written anew as a whole.\n"
      "Example:\n  limner audit verify --data-dir limner-data");
}

}  // namespace limner::cli
