// Fields: the members of a JSON object that a client sent, taken one by one. What is wrong with
// them is collected, so that a client is told of all of it at once.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "contract/validate.h"

namespace limner::contract {

// Members that are null count as absent. A member of the wrong kind is noted and leaves the
// variable as it was; one that was never asked for is noted by finish().
class Fields {
 public:
  // `path` is put before the names in messages: "output." or "loras[0].".
  Fields(const nlohmann::json& object, std::string path, std::vector<FieldError>& problems)
      : object_(object), path_(std::move(path)), problems_(problems) {}

  // `other` is a further name of the member, which clients of other services know; two at once are
  // wrong. To be said before the member is taken.
  void also_known_as(const char* name, const char* other);
  const nlohmann::json* take(const char* name);  // nullptr: absent
  void read(const char* name, std::string& text);
  void read(const char* name, bool& yes);
  void read(const char* name, double& number);
  void read(const char* name, std::optional<double>& number);
  void read(const char* name, std::int64_t& number);
  void read(const char* name, std::optional<std::int64_t>& number);
  // A list of names among `known`, as many at most as there are.
  void read(const char* name, std::vector<std::string>& names,
            const std::vector<std::string>& known);
  const nlohmann::json* object(const char* name);  // nullptr: absent or no object
  const nlohmann::json* array(const char* name, std::size_t most);

  bool has(std::string_view name) const;  // given and not null
  void wrong(std::string_view name, std::string message);
  // The names of the members that nobody has taken.
  std::vector<std::string> unknown() const;
  // Notes every one of them.
  void finish();

 private:
  const nlohmann::json* find(const char* name);
  void want(const char* name, std::string_view kind, const nlohmann::json& got);
  template <typename Number, typename Variable>
  void read_number(const char* name, std::string_view kind, Variable& variable);

  const nlohmann::json& object_;
  const std::string path_;
  std::vector<FieldError>& problems_;
  std::vector<std::string> known_;
  std::multimap<std::string, const char*, std::less<>> others_;  // further names
};

// "an array", "true", "a number": what came in place of what was wanted.
std::string_view json_kind(const nlohmann::json& value);

}  // namespace limner::contract
