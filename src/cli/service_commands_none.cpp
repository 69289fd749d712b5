// The commands of a service's database, in a build without SOCI.
#include "cli/commands.h"

namespace limner::cli {
namespace {

void add_unavailable(CLI::App& app, Context& context, const char* name) {
  CLI::App* command = app.add_subcommand(name, "Not in this build: it has no database");
  command->allow_extras();
  command->footer("Example:\n  limner doctor");
  command->callback([&context] {
    context.exit_code =
        context.console().fail({ErrorCode::kUnsupported,
                                "this build has no database: install libsoci-dev and build again"});
  });
}

}  // namespace

void add_key_commands(CLI::App& app, Context& context) {
  add_unavailable(app, context, "key");
}

void add_account_commands(CLI::App& app, Context& context) {
  add_unavailable(app, context, "account");
}

void add_audit_commands(CLI::App& app, Context& context) {
  add_unavailable(app, context, "audit");
}

}  // namespace limner::cli
