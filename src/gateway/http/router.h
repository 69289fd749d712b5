// Router: which handler answers a method and a path.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/http/message.h"

namespace limner::gateway::http {

struct RouteOptions {
  bool open = false;  // answered without a key too
  // Bytes of a request's body; 0: the server's own limit. The server's holds in any case.
  std::size_t body_limit = 0;
};

// Filled before the server starts, then read by many threads.
//
// A pattern is made of fixed segments, "{name}" for one segment of any text, and as the last one
// "{name...}" for all the rest, slashes included, e.g. "/v1/artifacts/{key...}". Fixed segments win
// over {name}, and that over {name...}. HEAD is answered by the handler of GET where it has none.
class Router {
 public:
  // Two handlers for one method and pattern are a mistake of ours.
  void add(beast_http::verb method, std::string pattern, Handler handler,
           RouteOptions options = {});

  struct Found {
    Handler handler;
    RouteOptions options{};
  };
  // Fills in request.path, query, route and path_parameters from request.target (origin or absolute
  // form). Throws ProblemFailure: 400 for a target that is not well-formed (percent-escapes that
  // are broken or hide a slash, "." and ".." segments, text that is not UTF-8, control characters,
  // a query name given twice), 404, 405 (with Allow), 501 for a method that no route has. OPTIONS
  // gets a handler that answers 204 with Allow.
  Found find(Request& request) const;

  struct Route {
    beast_http::verb method = beast_http::verb::get;
    std::string pattern{};
  };
  std::vector<Route> routes() const;  // by pattern, in the order in which patterns were added

 private:
  struct Entry {
    std::string pattern;
    std::vector<std::string> segments;  // of the pattern, split at '/'
    struct Method {
      beast_http::verb verb;
      Found found;
    };
    std::vector<Method> methods;
  };

  const Entry* match(const std::vector<std::string>& segments) const;

  std::vector<Entry> entries_;
};

}  // namespace limner::gateway::http
