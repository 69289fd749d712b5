// Loads the engine module (liblimner_engine.so, which links libtorch) when a command needs it.
#pragma once

#include <string>

#include "base/error.h"
#include "cli/console.h"
#include "cli/generate_options.h"
#include "cli/merge_options.h"
#include "cli/template_options.h"

namespace limner::cli {

// What the module offers; it is built together with the program, never apart from it.
struct EngineCommands {
  int (*generate)(const GenerateOptions& options, const Console& console);
  int (*bench)(const BenchOptions& options, const Console& console);
  int (*template_build)(const TemplateBuildOptions& options, const Console& console);
  int (*merge)(const MergeOptions& options, const Console& console);
  std::string (*device_report)();  // JSON: libtorch version, threads, CUDA devices
};

// Fails with kUnsupported, naming the file that is missing and what to do.
Result<const EngineCommands*> load_engine();

}  // namespace limner::cli
