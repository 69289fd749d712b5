// `limner runpod`: a worker of a serverless endpoint, or such an endpoint at home.
#include "cli/commands.h"
#include "cli/engine_loader.h"
#include "cli/runpod_options.h"

namespace limner::cli {

void add_runpod_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("runpod", "Draw for a RunPod serverless endpoint");
  auto options = std::make_shared<RunpodOptions>();
  add_config_options(*command, options->config, false);
  // The names with underscores are those of RunPod's own SDK.
  CLI::Option* test =
      command->add_option("--test-input,--test_input", options->test_input,
                          "Draw one job: a file with {\"input\": {...}}, or that JSON itself");
  CLI::Option* refresh = command->add_flag("--refresh-worker", options->refresh_worker,
                                           "Ask for a fresh worker after the first job, and end");
  CLI::Option* api = command->add_flag("--serve-api,--rp_serve_api", options->serve_api,
                                       "Be an endpoint at home: its HTTP API, its queue, a worker");
  command
      ->add_option("--api-host,--rp_api_host", options->api_host,
                   "Address of that API: localhost, an IPv4 or IPv6 address")
      ->needs(api)
      ->capture_default_str();
  command->add_option("--api-port,--rp_api_port", options->api_port, "Its port; 0: a free one")
      ->needs(api)
      ->capture_default_str();
  command
      ->add_option("--api-concurrency,--rp_api_concurrency", options->api_concurrency,
                   "Jobs drawn at a time; else the setting `workers`")
      ->needs(api)
      ->check(CLI::Range(1, 64));
  CLI::Option* direct =
      command->add_flag("--load-balancing", options->load_balancing,
                        "Serve HTTP on $PORT (80), as load-balancing endpoints want it");
  api->excludes(test)->excludes(refresh)->excludes(direct);
  direct->excludes(test)->excludes(refresh);
  add_console_options(*command, context);
  command->footer(
      "The platform's variables (RUNPOD_WEBHOOK_GET_JOB, ...) say where jobs come from. Without\n"
      "them ./test_input.json is drawn. What a job may hold: docs/runpod.md.\n"
      "SIGTERM finishes what is being drawn; what cannot be finished in time ends as an error\n"
      "that may be tried again.\n\n"
      "Examples:\n"
      "  limner runpod --test-input '{\"input\": {\"prompt\": \"a red circle\"}}'\n"
      "  limner runpod --serve-api\n"
      "  curl localhost:8000/runsync -d '{\"input\": {\"prompt\": \"a red circle\"}}'\n"
      "  PORT=8080 limner runpod --load-balancing\n"
      "  curl localhost:8080/generate -d '{\"prompt\": \"a red circle\"}'");
  command->callback([options, &context] {
    const Console console = context.console();
    const auto engine = load_engine();
    context.exit_code =
        engine.ok() ? (*engine)->runpod(*options, console) : console.fail(engine.error());
  });
}

}  // namespace limner::cli
