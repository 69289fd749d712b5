// `limner volume`, in a build without OpenSSL.
#include "cli/commands.h"

namespace limner::cli {

void add_volume_commands(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("volume", "Not in this build: it has no OpenSSL");
  command->allow_extras();
  command->footer("Example:\n  limner doctor");
  command->callback([&context] {
    context.exit_code = context.console().fail(
        {ErrorCode::kUnsupported, "this build has no OpenSSL: install libssl-dev and build again"});
  });
}

}  // namespace limner::cli
