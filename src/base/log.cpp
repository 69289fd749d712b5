#include "base/log.h"

#include <array>
#include <cstddef>

namespace limner {

std::string_view name(LogLevel level) {
  constexpr std::array<std::string_view, 4> kNames = {"debug", "info", "warning", "error"};
  return kNames[static_cast<std::size_t>(level)];
}

}  // namespace limner
