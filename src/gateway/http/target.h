// The target of a request: path and query, read strictly (RFC 9112 section 3.2, RFC 3986).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace limner::gateway::http {

struct Target {
  std::string path{};                   // as it came, from its first slash on
  std::vector<std::string> segments{};  // of the path, decoded: "/v1/a%20b" is {"v1", "a b"}
  std::map<std::string, std::string> query{};
};

// Origin form ("/v1/models?x=1"), absolute form ("http://host/v1/models") or "*". What comes out is
// UTF-8 without control characters; no segment is "." or ".." or holds a slash. In the query '+' is
// a space. Throws ProblemFailure, 400, that says what is wrong.
Target parse_target(std::string_view text);

}  // namespace limner::gateway::http
