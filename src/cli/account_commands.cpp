// `limner account list` and `set`; they work while the server runs.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/service_folder.h"
#include "platform/accounts/key_store.h"

namespace limner::cli {
namespace {

using nlohmann::json;
using platform::Account;
using platform::AccountChange;
using platform::KeyStore;

struct Options {
  ConfigOptions config;
  std::string name;
  AccountChange change;
};

json to_json(const Account& account) {
  return {{"name", account.name},
          {"tier", account.tier},
          {"requests_per_minute", account.limits.requests_per_minute},
          {"burst", account.limits.burst},
          {"concurrent_requests", account.limits.concurrent_requests},
          {"images_per_day", account.limits.images_per_day},
          {"disabled", account.disabled}};
}

std::string limit(std::int64_t value) {
  return value == 0 ? "no limit" : std::to_string(value);
}

void print(const Account& account, const Console& console) {
  console.result(
      fmt::format("{:<24} {:<6} requests/minute: {}, burst: {}, at once: {}, images/day: {}{}",
                  account.name, account.tier, limit(account.limits.requests_per_minute),
                  account.limits.burst, limit(account.limits.concurrent_requests),
                  limit(account.limits.images_per_day), account.disabled ? "  (disabled)" : ""));
}

int list(const Options&, KeyStore& store, const Console& console) {
  const auto accounts = store.accounts();
  if (!accounts.ok()) return console.fail(accounts.error());
  json all = json::array();
  for (const Account& account : *accounts) {
    if (console.json()) {
      all.push_back(to_json(account));
    } else {
      print(account, console);
    }
  }
  if (console.json()) console.result(json{{"accounts", all}}.dump());
  return 0;
}

int set(const Options& options, KeyStore& store, const Console& console) {
  const AccountChange& change = options.change;
  if (!change.tier && !change.requests_per_minute && !change.burst && !change.concurrent_requests &&
      !change.images_per_day && !change.disabled) {
    return console.fail({ErrorCode::kInvalidArgument,
                         "nothing to set: want at least one of --tier, --requests-per-minute, "
                         "--burst, --concurrent, --images-per-day, --disable and --enable"});
  }
  const auto account = store.change_account(options.name, change, command_line_actor());
  if (!account.ok()) return console.fail(account.error());
  if (console.json()) {
    console.result(to_json(*account).dump());
  } else {
    print(*account, console);
  }
  return 0;
}

CLI::App* add(CLI::App& parent, Context& context, const char* name, const char* what,
              const std::shared_ptr<Options>& options,
              int (*act)(const Options&, KeyStore&, const Console&)) {
  CLI::App* command = parent.add_subcommand(name, what);
  add_config_options(*command, options->config, false);
  add_console_options(*command, context);
  command->callback([options, act, &context] {
    const Console console = context.console();
    context.exit_code = with_key_store(options->config, false, console, [&](KeyStore& store) {
      return act(*options, store, console);
    });
  });
  return command;
}

}  // namespace

void add_account_commands(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("account", "List accounts, and set what they may use");
  command->require_subcommand(1);
  command->footer("Example:\n  limner account list --data-dir limner-data");
  add(*command, context, "list", "All accounts with their limits", std::make_shared<Options>(),
      list)
      ->footer("Example:\n  limner account list --data-dir limner-data");

  auto options = std::make_shared<Options>();
  CLI::App* one =
      add(*command, context, "set", "Change an account; what is not named stays", options, set);
  AccountChange& change = options->change;
  one->add_option("account", options->name, "Its name")->required();
  one->add_option("--tier", change.tier, "turbo, fast or relax")
      ->check(CLI::IsMember({"turbo", "fast", "relax"}));
  one->add_option("--requests-per-minute", change.requests_per_minute, "Of each key; 0: no limit");
  one->add_option("--burst", change.burst, "Requests of a key that may come at once");
  one->add_option("--concurrent", change.concurrent_requests,
                  "Requests being answered at the same time; 0: no limit");
  one->add_option("--images-per-day", change.images_per_day,
                  "Between midnights (UTC); 0: no limit");
  CLI::Option* disable = one->add_flag_callback(
      "--disable", [options] { options->change.disabled = true; }, "Refuse all its keys");
  one->add_flag_callback(
         "--enable", [options] { options->change.disabled = false; }, "Let its keys work again")
      ->excludes(disable);
  one->footer(
      "Example:\n  limner account set ada --tier turbo --requests-per-minute 120 "
      "--images-per-day 500 --data-dir limner-data");
}

}  // namespace limner::cli
