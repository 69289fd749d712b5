// The commands: one function each, which adds it to the application. Its callback leaves the exit
// code in Context.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/console.h"

namespace limner::cli {

struct Context {
  ConsoleOptions options;  // filled while parsing
  int exit_code = 0;       // of the command that ran
  Console console() const { return Console(options); }
};

void add_generate_command(CLI::App& app, Context& context);
void add_serve_command(CLI::App& app, Context& context);
void add_runpod_command(CLI::App& app, Context& context);
void add_bench_command(CLI::App& app, Context& context);
void add_bench_queue_command(CLI::App& bench, Context& context);
void add_lora_commands(CLI::App& app, Context& context);
void add_model_commands(CLI::App& app, Context& context);
void add_template_commands(CLI::App& app, Context& context);
void add_volume_commands(CLI::App& app, Context& context);
void add_key_commands(CLI::App& app, Context& context);
void add_account_commands(CLI::App& app, Context& context);
void add_audit_commands(CLI::App& app, Context& context);
void add_config_commands(CLI::App& app, Context& context);
void add_doctor_command(CLI::App& app, Context& context);
void add_version_command(CLI::App& app, Context& context);

// --json and --progress, which every command takes.
void add_console_options(CLI::App& command, Context& context);

}  // namespace limner::cli
