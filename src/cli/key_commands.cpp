// `limner key create`, `list`, `revoke` and `rotate`; they work while the server runs.
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/service_folder.h"
#include "platform/accounts/key_store.h"
#include "platform/log_sink.h"

namespace limner::cli {
namespace {

using nlohmann::json;
using platform::ApiKey;
using platform::KeyStore;
using platform::NewKey;

struct Options {
  ConfigOptions config;
  std::string account, tier, scopes = "generate,read", expires, id, overlap = "24h";
};

json time_json(std::int64_t at) {
  return at == 0 ? json() : json(platform::to_rfc3339(platform::Millis{at}));
}

// What a key is at this moment.
std::string_view state(const ApiKey& key, std::int64_t now) {
  if (key.revoked_at != 0) return "revoked";
  return key.expires_at != 0 && key.expires_at <= now ? "expired" : "active";
}

json to_json(const ApiKey& key, const std::string& tier) {
  return {{"id", key.id},
          {"account", key.account},
          {"tier", tier},
          {"shown", key.shown},
          {"scopes", platform::to_string(key.scopes)},
          {"created_at", time_json(key.created_at)},
          {"expires_at", time_json(key.expires_at)},
          {"revoked_at", time_json(key.revoked_at)},
          {"last_used_at", time_json(key.last_used_at)}};
}

// The key alone on stdout, so that a script can take it.
void show_new(const NewKey& made, const Console& console) {
  if (console.json()) {
    json body = to_json(made.about, made.tier);
    body["key"] = made.key;
    console.result(body.dump());
    return;
  }
  console.result(made.key);
  console.note(fmt::format("{} of {}account {}, tier {}, scopes {}, {}. It is not shown again.",
                           made.about.id, made.new_account ? "the new " : "", made.about.account,
                           made.tier, platform::to_string(made.about.scopes),
                           made.about.expires_at == 0
                               ? "does not expire"
                               : "expires " + shown_time(made.about.expires_at) + " UTC"));
}

int create(const Options& options, KeyStore& store, const Console& console) {
  const auto scopes = platform::parse_scopes(options.scopes);
  if (!scopes.ok()) return console.fail(scopes.error());
  std::int64_t expires_at = 0;
  if (!options.expires.empty()) {
    const auto after = parse_duration(options.expires);
    if (!after.ok()) return console.fail(after.error());
    expires_at = (platform::SystemClock().wall() + *after).count();
  }
  const auto made =
      store.create({options.account, options.tier, *scopes, expires_at}, command_line_actor());
  if (!made.ok()) return console.fail(made.error());
  show_new(*made, console);
  return 0;
}

int list(const Options& options, KeyStore& store, const Console& console) {
  auto keys = store.keys();
  if (!keys.ok()) return console.fail(keys.error());
  const auto accounts = store.accounts();
  if (!accounts.ok()) return console.fail(accounts.error());
  std::map<std::string, std::string> tiers;
  for (const platform::Account& account : *accounts) tiers[account.name] = account.tier;
  std::erase_if(*keys, [&](const ApiKey& key) {
    return !options.account.empty() && key.account != options.account;
  });
  const std::int64_t now = platform::SystemClock().wall().count();
  json all = json::array();
  for (const ApiKey& key : *keys) {
    const std::string& tier = key.tier.empty() ? tiers[key.account] : key.tier;
    if (console.json()) {
      all.push_back(to_json(key, tier));
      all.back()["state"] = state(key, now);
      continue;
    }
    console.result(fmt::format(
        "{}  {}  {:<7}  {:<16} {:<6} {:<19}  created {:<16}  expires {:<16}  "
        "used {}",
        key.id, key.shown, state(key, now), key.account, tier, platform::to_string(key.scopes),
        shown_time(key.created_at), shown_time(key.expires_at), shown_time(key.last_used_at)));
  }
  if (console.json()) console.result(json{{"keys", all}}.dump());
  return 0;
}

int revoke(const Options& options, KeyStore& store, const Console& console) {
  const auto revoked = store.revoke(options.id, command_line_actor());
  if (!revoked.ok()) return console.fail(revoked.error());
  console.result(console.json() ? json{{"id", options.id}, {"state", "revoked"}}.dump()
                                : fmt::format("revoked {}", options.id));
  return 0;
}

int rotate(const Options& options, KeyStore& store, const Console& console) {
  const auto overlap = parse_duration(options.overlap);
  if (!overlap.ok()) return console.fail(overlap.error());
  const auto made = store.rotate(options.id, *overlap, command_line_actor());
  if (!made.ok()) return console.fail(made.error());
  show_new(*made, console);
  console.note(fmt::format("{} works for {} more, if it does not expire before.", options.id,
                           options.overlap));
  return 0;
}

// A subcommand whose act gets the store of its data folder.
CLI::App* add(CLI::App& parent, Context& context, const char* name, const char* what,
              const std::shared_ptr<Options>& options,
              int (*act)(const Options&, KeyStore&, const Console&)) {
  CLI::App* command = parent.add_subcommand(name, what);
  add_config_options(*command, options->config, false);
  add_console_options(*command, context);
  command->callback([options, act, make = act == create, &context] {
    const Console console = context.console();
    context.exit_code = with_key_store(options->config, make, console, [&](KeyStore& store) {
      return act(*options, store, console);
    });
  });
  return command;
}

void add_create(CLI::App& parent, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      add(parent, context, "create",
          "Make a key, and its account where there is none; it is shown once", options, create);
  command->add_option("--account", options->account, "Whose key it is")->required();
  command
      ->add_option("--tier", options->tier,
                   "Tier of a new account; of a key of a known account, where it differs")
      ->check(CLI::IsMember({"turbo", "fast", "relax"}));
  command
      ->add_option("--scopes", options->scopes, "Of generate, read and admin, separated by commas")
      ->capture_default_str();
  command->add_option("--expires", options->expires,
                      "After this time, such as 90d or 12h; default: never");
  command->footer(
      "What an account may use is set by `limner account set`.\n"
      "Example:\n  limner key create --data-dir limner-data --account ada --tier fast "
      "--expires 90d");
}

}  // namespace

void add_key_commands(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("key", "Make, list, revoke and rotate API keys");
  command->require_subcommand(1);
  command->footer("Example:\n  limner key list --data-dir limner-data");
  add_create(*command, context);

  auto options = std::make_shared<Options>();
  CLI::App* one = add(*command, context, "list", "All keys, without their secrets", options, list);
  one->add_option("--account", options->account, "Of this account only");
  one->footer("Example:\n  limner key list --data-dir limner-data --account ada");

  options = std::make_shared<Options>();
  one = add(*command, context, "revoke", "Refuse a key from now on", options, revoke);
  one->add_option("id", options->id, "Of the key, as `limner key list` shows it")->required();
  one->footer("Example:\n  limner key revoke key_3kTMd9sQzRwA0b1C --data-dir limner-data");

  options = std::make_shared<Options>();
  one = add(*command, context, "rotate", "Replace a key by a new one with the same rights", options,
            rotate);
  one->add_option("id", options->id, "Of the key, as `limner key list` shows it")->required();
  one->add_option("--overlap", options->overlap, "Time for which the old one still works")
      ->capture_default_str();
  one->footer(
      "Example:\n  limner key rotate key_3kTMd9sQzRwA0b1C --overlap 24h --data-dir limner-data");
}

}  // namespace limner::cli
