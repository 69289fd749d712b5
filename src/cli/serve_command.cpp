// `limner serve`: gateway, queue, workers and delivery in one process.
#include "cli/commands.h"
#include "cli/config_options.h"
#include "cli/engine_loader.h"

namespace limner::cli {

void add_serve_command(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("serve", "Draw for others: HTTP API, queue, workers and delivery");
  auto options = std::make_shared<ConfigOptions>();
  add_config_options(*command, *options, true);
  add_console_options(*command, context);
  command->footer(
      "All settings: docs/limner.toml. The first start prints a key with all rights, once.\n"
      "SIGTERM or Ctrl-C finishes what is being drawn; a second one stops at once: nothing that "
      "was\n"
      "accepted is lost either way.\n\n"
      "Example:\n  limner serve --data-dir limner-data --port 8420");
  command->callback([options, &context] {
    const Console console = context.console();
    const auto engine = load_engine();
    context.exit_code =
        engine.ok() ? (*engine)->serve(*options, console) : console.fail(engine.error());
  });
}

}  // namespace limner::cli
