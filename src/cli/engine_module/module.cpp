// The engine module's only exported symbol.
#include "cli/engine_loader.h"
#include "cli/engine_module/commands.h"
#include "cli/engine_module/merge.h"
#include "cli/engine_module/template_build.h"

namespace {

const limner::cli::EngineCommands commands = {
    .generate = limner::cli::generate,
    .bench = limner::cli::bench,
    .template_build = limner::cli::template_build,
    .merge = limner::cli::merge,
    .serve = limner::cli::serve,
    .runpod = limner::cli::runpod,
    .device_report = limner::cli::device_report,
};

}  // namespace

extern "C" __attribute__((visibility("default")))
const limner::cli::EngineModule limner_engine_module = {
    .version = LIMNER_VERSION,
    .layout_count = limner::cli::kEngineLayout.size(),
    .layout = limner::cli::kEngineLayout.data(),
    .commands = &commands,
};
