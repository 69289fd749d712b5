// Fields: the members of a JSON object that a client sent, taken one by one. What is wrong with
// them is collected, so that a client is told of all of it at once.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/http/message.h"

namespace limner::gateway::api_v1 {

// Members that are null count as absent. A member of the wrong kind is noted and leaves the
// variable as it was; one that was never asked for is noted by finish().
class Fields {
 public:
  // `path` is put before the names in messages: "output." or "loras[0].".
  Fields(const nlohmann::json& object, std::string path, std::vector<http::FieldProblem>& problems)
      : object_(object), path_(std::move(path)), problems_(problems) {}

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
  // Notes every member that nobody has taken.
  void finish();

 private:
  void want(const char* name, std::string_view kind, const nlohmann::json& got);
  template <typename Number, typename Variable>
  void read_number(const char* name, std::string_view kind, Variable& variable);

  const nlohmann::json& object_;
  const std::string path_;
  std::vector<http::FieldProblem>& problems_;
  std::vector<std::string> known_;
};

// A body of at most `most_bytes`, strictly: no duplicate keys, no comments, 32 levels at most, an
// object at the top. Throws ProblemFailure: 400, or 413.
nlohmann::json parse_object(std::string_view body, std::size_t most_bytes);

}  // namespace limner::gateway::api_v1
