// The engine module's only exported symbol.
#include "cli/engine_loader.h"
#include "cli/engine_module/commands.h"

extern "C" __attribute__((visibility("default"))) const limner::cli::EngineCommands*
limner_engine_commands() {
  static const limner::cli::EngineCommands commands = {
      .generate = limner::cli::generate,
      .bench = limner::cli::bench,
      .device_report = limner::cli::device_report,
  };
  return &commands;
}
