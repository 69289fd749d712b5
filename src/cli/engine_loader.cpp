#include "cli/engine_loader.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string_view>

namespace limner::cli {

Result<const EngineCommands*> load_engine(const std::filesystem::path& file) {
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("the engine cannot be loaded: {}", dlerror())};
  }
  const auto* module = static_cast<const EngineModule*>(dlsym(handle, "limner_engine_module"));
  if (module == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{} is not limner's engine, or of an older version", file.string())};
  }
  const std::span layout(module->layout, module->layout_count);
  if (std::string_view(module->version) != LIMNER_VERSION ||
      !std::equal(layout.begin(), layout.end(), kEngineLayout.begin(), kEngineLayout.end())) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("{} is of another build (version {}) than this program (version {}); "
                             "install both together, or run script/build",
                             file.string(), module->version, LIMNER_VERSION)};
  }
  return module->commands;
}

Result<const EngineCommands*> load_engine() {
  const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  for (const std::filesystem::path& folder : {here / "lib", here / ".." / "lib" / "limner"}) {
    const std::filesystem::path file = folder / "liblimner_engine.so";
    if (std::filesystem::exists(file)) return load_engine(file);
  }
  return Error{
      ErrorCode::kUnsupported,
      fmt::format(
          "no engine beside this program (want {}/lib/liblimner_engine.so); run script/build",
          here.string())};
}

}  // namespace limner::cli
