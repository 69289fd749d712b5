// An engine module that draws nothing, for engine_loader_test.cpp; LIMNER_KIND says what is wrong.
#include "cli/engine_loader.h"

using limner::cli::EngineCommands, limner::cli::EngineModule, limner::cli::kEngineLayout;

namespace {

enum class Kind { kSame, kVersion, kLayout, kShorter };
constexpr Kind kKind = Kind::LIMNER_KIND;

constexpr auto layout() {
  auto sizes = kEngineLayout;
  if (kKind == Kind::kLayout) sizes.back() += 8;
  return sizes;
}

constexpr auto kLayout = layout();

const EngineCommands commands = {.generate = nullptr,
                                 .bench = nullptr,
                                 .template_build = nullptr,
                                 .merge = nullptr,
                                 .serve = nullptr,
                                 .runpod = nullptr,
                                 .device_report = [] { return std::string("same"); }};

constexpr EngineModule module() {
  return {.version = kKind == Kind::kVersion ? "0.0.0" : LIMNER_VERSION,
          .layout_count = kLayout.size() - (kKind == Kind::kShorter ? 1 : 0),
          .layout = kLayout.data(),
          .commands = &commands};
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const EngineModule limner_engine_module =
    module();
