// Loads the engine module (liblimner_engine.so, which links libtorch) when a command needs it.
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "cli/config_options.h"
#include "cli/console.h"
#include "cli/generate_options.h"
#include "cli/merge_options.h"
#include "cli/runpod_options.h"
#include "cli/template_options.h"

namespace limner::cli {

// What the module offers. Structs cross the border as they lie in memory, so a module of another
// build is refused (EngineModule).
struct EngineCommands {
  int (*generate)(const GenerateOptions& options, const Console& console);
  int (*bench)(const BenchOptions& options, const Console& console);
  int (*template_build)(const TemplateBuildOptions& options, const Console& console);
  int (*merge)(const MergeOptions& options, const Console& console);
  int (*serve)(const ConfigOptions& options, const Console& console);
  int (*runpod)(const RunpodOptions& options, const Console& console);
  std::string (*device_report)();  // JSON: libtorch version, threads, CUDA devices
};

// Sizes that program and module must agree in: whoever adds a struct to EngineCommands adds its.
constexpr std::array<std::size_t, 9> kEngineLayout = {sizeof(EngineCommands),
                                                      sizeof(Console),
                                                      sizeof(GenerateOptions),
                                                      sizeof(BenchOptions),
                                                      sizeof(TemplateBuildOptions),
                                                      sizeof(MergeOptions),
                                                      sizeof(ConfigOptions),
                                                      sizeof(RunpodOptions),
                                                      sizeof(Error)};

// The module's one exported symbol, `limner_engine_module`, is of this type; its first members
// never change.
struct EngineModule {
  const char* version;
  std::size_t layout_count;
  const std::size_t* layout;
  const EngineCommands* commands;
};

// Loads one file. Fails with kUnsupported: it is no engine, or one of another build.
Result<const EngineCommands*> load_engine(const std::filesystem::path& file);

// The one beside this program. Fails with kUnsupported, naming the file that is missing and what to
// do.
Result<const EngineCommands*> load_engine();

}  // namespace limner::cli
