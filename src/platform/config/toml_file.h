// The values of a TOML file (toml.io, 1.0.0), flat, with their places.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::platform {

enum class TomlType { kBoolean, kInteger, kNumber, kText, kTexts, kTable, kOther };

struct TomlValue {
  std::string name;  // "server.port"; keys of tables joined with dots
  TomlType type = TomlType::kOther;
  std::string kind;                // in words: "a text", "a date", "a list of numbers"
  std::vector<std::string> texts;  // of all but kTable and kOther; one, or those of the list
  std::size_t line = 0, column = 0;
};

struct TomlProblem {
  std::string message;
  std::size_t line = 0, column = 0;
};

struct TomlFile {
  std::vector<TomlValue> values;  // in the order of the file; tables too, before what is in them
  std::optional<TomlProblem> problem;  // why it is no TOML, at its first place; no values then
};

// Errors: kUnsupported (built without toml++).
Result<TomlFile> read_toml(std::string_view text);

}  // namespace limner::platform
