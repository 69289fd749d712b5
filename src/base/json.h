// Reading JSON that came from outside: strict, bounded, and with one clear sentence when it is
// broken.
#pragma once

#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

namespace limner {

struct JsonLimits {
  std::size_t bytes = 16u << 20;   // of the text
  std::size_t depth = 64;          // arrays and objects inside each other
  std::size_t values = 1'000'000;  // of all kinds: bounds the memory of the parsed form
};

// Where the values of a text that people write by hand stand in it.
class JsonLines {
 public:
  // The line, counted from 1, of the value at a JSON pointer ("/templates/portrait/scale"): that of
  // its key, or of its first character in an array; or of the nearest place above it that is there.
  std::size_t line_of(std::string_view pointer) const;
  void set(std::string pointer, std::size_t line) { lines_[std::move(pointer)] = line; }

 private:
  std::map<std::string, std::size_t> lines_;
};

// Refuses what JSON (RFC 8259) forbids (comments, NaN, trailing text, broken UTF-8, a zero byte),
// numbers that do not fit a double, and also duplicate keys, because parsers differ in which of the
// two they believe. Fails with kInvalidArgument: "not valid JSON near byte 12 (...)".
// With `lines` it also tells the line of every value, and messages begin "line 7: ".
Result<nlohmann::json> parse_json(std::string_view text, const JsonLimits& limits = {},
                                  JsonLines* lines = nullptr);

// `name` as a part of a JSON pointer (RFC 6901): ~ and / escaped.
std::string pointer_part(std::string_view name);

}  // namespace limner
