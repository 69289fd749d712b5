// The engine module's only exported symbol.
#include "cli/engine_loader.h"
#include "cli/engine_module/commands.h"
#include "cli/engine_module/merge.h"
#include "cli/engine_module/template_build.h"

extern "C" __attribute__((visibility("default"))) const limner::cli::EngineCommands*
limner_engine_commands() {
  static const limner::cli::EngineCommands commands = {
      .generate = limner::cli::generate,
      .bench = limner::cli::bench,
      .template_build = limner::cli::template_build,
      .merge = limner::cli::merge,
      .device_report = limner::cli::device_report,
  };
  return &commands;
}
