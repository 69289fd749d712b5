// multipart/form-data (RFC 7578) as browsers and curl send it: whole, in memory.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::gateway::http {

struct FormPart {
  std::string name{};
  std::string filename{};      // "" when the part is no file; only its last segment is kept
  std::string content_type{};  // "" when not said
  std::string_view content{};  // in the body that was parsed
};

inline constexpr std::size_t kMostFormParts = 256;
inline constexpr std::size_t kMostPartHeader = 8 << 10;  // bytes

// The parts in their order. `content_type` is the request's field, which names the boundary; the
// parts point into `body`. Errors: kInvalidArgument that says what is wrong (no boundary, a part
// without a name, more than the limits above, an end that never comes).
Result<std::vector<FormPart>> parse_multipart(std::string_view content_type, std::string_view body);

}  // namespace limner::gateway::http
