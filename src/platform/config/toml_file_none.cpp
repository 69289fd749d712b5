// Stands in where toml++ is missing.
#include "platform/config/toml_file.h"

namespace limner::platform {

Result<TomlFile> read_toml(std::string_view) {
  return Error{ErrorCode::kUnsupported,
               "[config] this build has no toml++ and cannot read limner.toml; variables and "
               "options work"};
}

}  // namespace limner::platform
