#include "cli/app.h"

#include <fmt/format.h>

#include <exception>

#include "cli/commands.h"
#include "cli/engine_loader.h"
#include "cli/generate_options.h"
#include "cli/template_paths.h"

namespace limner::cli {
namespace {

// One line per command; the order is that of `limner --help`.
constexpr void (*kCommands[])(CLI::App&, Context&) = {
    add_generate_command, add_serve_command,     add_runpod_command,  add_lora_commands,
    add_model_commands,   add_template_commands, add_volume_commands, add_key_commands,
    add_account_commands, add_audit_commands,    add_config_commands, add_bench_command,
    add_doctor_command,   add_version_command,
};

// Runs one of the engine module's commands.
template <typename Options>
int with_engine(int (*EngineCommands::*command)(const Options&, const Console&),
                const Options& options, const Console& console) {
  const auto engine = load_engine();
  if (!engine.ok()) return console.fail(engine.error());
  return ((*engine)->*command)(options, console);
}

}  // namespace

void add_console_options(CLI::App& command, Context& context) {
  command.add_flag("--json", context.options.json,
                   "One JSON object on stdout; errors as JSON on stderr");
  command
      .add_option_function<std::string>(
          "--progress",
          [&context](const std::string& style) {
            context.options.progress = style == "plain"  ? ProgressStyle::kPlain
                                       : style == "none" ? ProgressStyle::kNone
                                                         : ProgressStyle::kAuto;
          },
          "auto (a bar on a terminal), plain (lines) or none")
      ->check(CLI::IsMember({"auto", "plain", "none"}));
}

void add_generate_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("generate", "Draw pictures from words");
  auto options = std::make_shared<GenerateOptions>();
  add_generate_options(*command, *options);
  add_console_options(*command, context);
  command->callback([options, &context] {
    const Console console = context.console();
    if (!options->template_name.empty()) {
      std::string said;
      if (const auto applied = apply_template(*options, said); !applied.ok()) {
        context.exit_code = console.fail(applied.error());
        return;
      }
      console.note(said);
    }
    context.exit_code = with_engine(&EngineCommands::generate, *options, console);
  });
}

void add_bench_command(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("bench", "Time loading, encoding, a step and decoding on this machine");
  auto options = std::make_shared<BenchOptions>();
  add_bench_options(*command, *options);
  add_console_options(*command, context);
  add_bench_queue_command(*command, context);
  command->callback([options, command, &context] {
    if (!command->get_subcommands().empty()) return;  // the subcommand has run
    context.exit_code = with_engine(&EngineCommands::bench, *options, context.console());
  });
}

void add_version_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("version", "Print the version");
  add_console_options(*command, context);
  command->footer("Example:\n  limner version");
  command->callback([&context] {
    const Console console = context.console();
    console.result(console.json() ? R"({"version":")" LIMNER_VERSION R"("})"
                                  : "limner " LIMNER_VERSION);
  });
}

int run(int argc, const char* const* argv) {
  CLI::App app("limner draws pictures from words.", "limner");
  app.require_subcommand(1);
  app.set_version_flag("--version", "limner " LIMNER_VERSION);
  app.footer(
      "Example:\n  limner generate \"a red circle above a blue square on a white background\" "
      "--output circle.png");
  Context context;
  for (const auto add : kCommands) add(app, context);
  try {
    app.parse(argc, argv);
    return context.exit_code;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return context.console().fail({ErrorCode::kInvalidArgument, error.what()});
  } catch (const std::exception& error) {
    return context.console().fail({ErrorCode::kInternal, error.what()});
  }
}

}  // namespace limner::cli
