// JSON from a file that people write by hand: parsed strictly, with the line of every value, so
// that an error can say where to look.
#pragma once

#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::platform {

struct LocatedJson {
  nlohmann::json value;
  // JSON pointer ("/templates/portrait/loras/0/scale") -> line, counted from 1: that of the key, or
  // of the first character for elements of arrays and the whole.
  std::map<std::string, std::size_t> lines;

  // The line of `pointer`, or of the nearest place above it that is there.
  std::size_t line_of(std::string_view pointer) const;
};

// Limits: 4 MiB, 32 levels, 100 000 values. Refuses comments, duplicate keys, zero bytes, text
// after the end. Fails with kInvalidArgument: "line 7: ...".
Result<LocatedJson> parse_located_json(std::string_view text);

// `name` as a part of a JSON pointer: ~ and / escaped.
std::string pointer_part(std::string_view name);

}  // namespace limner::platform
