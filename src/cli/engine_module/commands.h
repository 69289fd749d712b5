// The commands that need the engine.
#pragma once

#include <atomic>
#include <filesystem>
#include <future>
#include <string>

#include "cli/console.h"
#include "cli/generate_options.h"
#include "engine/engine.h"

namespace limner::cli {

int generate(const GenerateOptions& options, const Console& console);
int bench(const BenchOptions& options, const Console& console);
std::string device_report();

// Ctrl-C and SIGTERM while this object lives set a flag instead of ending the process; a second one
// ends it at once.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  static bool requested();
};

// From the model options to a loaded engine.
Result<engine::Composition> composition(const ModelOptions& options);

// SHA-256 of a model folder as `limner model inspect` gives it, computed on its own thread;
// remembered for folders that did not change since, under $XDG_CACHE_HOME/limner.
std::future<std::string> model_hash(std::filesystem::path folder);

}  // namespace limner::cli
