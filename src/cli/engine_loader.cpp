#include "cli/engine_loader.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>

namespace limner::cli {

Result<const EngineCommands*> load_engine() {
  const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  for (const std::filesystem::path& folder : {here / "lib", here / ".." / "lib" / "limner"}) {
    const std::filesystem::path file = folder / "liblimner_engine.so";
    if (!std::filesystem::exists(file)) continue;
    void* module = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (module == nullptr) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("the engine cannot be loaded: {}", dlerror())};
    }
    using Entry = const EngineCommands* (*)();
    const auto entry = reinterpret_cast<Entry>(dlsym(module, "limner_engine_commands"));
    if (entry == nullptr) {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("{} is not limner's engine", file.string())};
    }
    return entry();
  }
  return Error{
      ErrorCode::kUnsupported,
      fmt::format(
          "no engine beside this program (want {}/lib/liblimner_engine.so); run script/build",
          here.string())};
}

}  // namespace limner::cli
