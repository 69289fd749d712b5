// `limner runpod`: a worker of a serverless endpoint, or one job of it at home.
#include "cli/commands.h"
#include "cli/engine_loader.h"
#include "cli/runpod_options.h"

namespace limner::cli {

void add_runpod_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("runpod", "Draw for a RunPod serverless endpoint");
  auto options = std::make_shared<RunpodOptions>();
  add_config_options(*command, options->config, false);
  command->add_option("--test-input", options->test_input,
                      "Draw one job instead: a file with {\"input\": {...}}, or that JSON itself");
  command->add_flag("--refresh-worker", options->refresh_worker,
                    "Ask for a fresh worker after the first job, and end");
  add_console_options(*command, context);
  command->footer(
      "The platform's variables (RUNPOD_WEBHOOK_GET_JOB, ...) say where jobs come from. Without\n"
      "them ./test_input.json is drawn. What a job may hold: docs/runpod/generate.schema.json.\n"
      "SIGTERM finishes what is being drawn; what cannot be finished in time ends as an error\n"
      "that may be tried again.\n\n"
      "Example:\n  limner runpod --test-input '{\"input\": {\"prompt\": \"a red circle\"}}'");
  command->callback([options, &context] {
    const Console console = context.console();
    const auto engine = load_engine();
    context.exit_code =
        engine.ok() ? (*engine)->runpod(*options, console) : console.fail(engine.error());
  });
}

}  // namespace limner::cli
