#include "gateway/http/router.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "gateway/http/target.h"

namespace limner::gateway::http {

namespace {

// Lower wins.
enum class Kind : char { kFixed = '0', kOne = '1', kRest = '2' };

Kind kind_of(std::string_view segment) {
  if (!segment.starts_with('{')) return Kind::kFixed;
  return segment.ends_with("...}") ? Kind::kRest : Kind::kOne;
}

std::string_view name_of(std::string_view segment) {
  segment.remove_prefix(1);
  return segment.substr(0, segment.size() - (segment.ends_with("...}") ? 4 : 1));
}

std::vector<std::string> pattern_segments(std::string_view pattern) {
  LIMNER_CHECK(pattern.starts_with('/'), fmt::format("route '{}' begins without a slash", pattern));
  std::vector<std::string> segments;
  for (std::string_view rest = pattern; !rest.empty();) {
    rest.remove_prefix(1);
    const std::size_t end = std::min(rest.find('/'), rest.size());
    segments.emplace_back(rest.substr(0, end));
    rest.remove_prefix(end);
  }
  return segments;
}

bool fits(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  const bool open_end = kind_of(pattern.back()) == Kind::kRest;
  if (open_end ? path.size() < pattern.size() : path.size() != pattern.size()) return false;
  for (std::size_t i = 0; i < path.size(); ++i) {
    if (i < pattern.size() && kind_of(pattern[i]) == Kind::kFixed) {
      if (path[i] != pattern[i]) return false;
    } else if (path[i].empty()) {
      return false;
    }
  }
  return true;
}

std::string rank(const std::vector<std::string>& pattern) {
  std::string kinds;
  for (const std::string& segment : pattern) kinds += static_cast<char>(kind_of(segment));
  return kinds;
}

std::map<std::string, std::string> parameters(const std::vector<std::string>& pattern,
                                              const std::vector<std::string>& path) {
  std::map<std::string, std::string> found;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const Kind kind = kind_of(pattern[i]);
    if (kind == Kind::kFixed) continue;
    std::string value = path[i];
    if (kind == Kind::kRest) {
      for (std::size_t k = i + 1; k < path.size(); ++k) value += "/" + path[k];
    }
    found.emplace(name_of(pattern[i]), std::move(value));
  }
  return found;
}

boost::asio::awaitable<Response> no_content(Request&) {
  Response response;
  response.status = beast_http::status::no_content;
  co_return response;
}

std::string allowed(std::vector<beast_http::verb> verbs) {
  using beast_http::verb;
  const auto has = [&](verb method) {
    return std::find(verbs.begin(), verbs.end(), method) != verbs.end();
  };
  if (has(verb::get) && !has(verb::head)) verbs.push_back(verb::head);
  verbs.push_back(verb::options);
  std::string names;
  for (const verb method : verbs) {
    const auto name = beast_http::to_string(method);
    names += (names.empty() ? "" : ", ") + std::string(name.data(), name.size());
  }
  return names;
}

[[noreturn]] void refuse(beast_http::status status, std::string code, std::string detail) {
  throw ProblemFailure({.status = status, .code = std::move(code), .detail = std::move(detail)});
}

}  // namespace

void Router::add(beast_http::verb method, std::string pattern, Handler handler,
                 RouteOptions options) {
  std::vector<std::string> segments = pattern_segments(pattern);
  for (std::size_t i = 0; i + 1 < segments.size(); ++i)
    LIMNER_CHECK(kind_of(segments[i]) != Kind::kRest, "only a route's last segment takes the rest");
  auto entry = std::find_if(entries_.begin(), entries_.end(),
                            [&](const Entry& known) { return known.pattern == pattern; });
  if (entry == entries_.end())
    entry = entries_.insert(entry, Entry{std::move(pattern), std::move(segments), {}});
  for (const Entry::Method& known : entry->methods)
    LIMNER_CHECK(known.verb != method, "two handlers for one route: " + entry->pattern);
  entry->methods.push_back({method, {std::move(handler), options}});
}

const Router::Entry* Router::match(const std::vector<std::string>& segments) const {
  const Entry* best = nullptr;
  for (const Entry& entry : entries_) {
    if (!fits(entry.segments, segments)) continue;
    if (!best || rank(entry.segments) < rank(best->segments)) best = &entry;
  }
  return best;
}

Router::Found Router::find(Request& request) const {
  using beast_http::verb;
  Target target = parse_target(request.target);
  request.path = target.path;
  request.query = std::move(target.query);
  if (request.method == verb::unknown)
    refuse(beast_http::status::not_implemented, "unknown_method", "There is no such method.");
  const Found options_answer{no_content, {.open = true}};
  if (target.path == "*" && request.method == verb::options) return options_answer;
  const Entry* entry = match(target.segments);
  if (!entry) refuse(beast_http::status::not_found, "not_found", "There is nothing at this path.");

  request.route = entry->pattern;
  request.path_parameters = parameters(entry->segments, target.segments);
  const Entry::Method* get = nullptr;
  std::vector<verb> verbs;
  for (const Entry::Method& method : entry->methods) {
    if (method.verb == request.method) return method.found;
    if (method.verb == verb::get) get = &method;
    verbs.push_back(method.verb);
  }
  if (request.method == verb::head && get) return get->found;
  const std::string allow = allowed(verbs);
  request.answer_fields.set(beast_http::field::allow, allow);
  if (request.method == verb::options) return options_answer;
  refuse(beast_http::status::method_not_allowed, "method_not_allowed",
         fmt::format("This path takes {}.", allow));
}

std::vector<Router::Route> Router::routes() const {
  std::vector<Route> routes;
  for (const Entry& entry : entries_) {
    for (const Entry::Method& method : entry.methods)
      routes.push_back({method.verb, entry.pattern});
  }
  return routes;
}

}  // namespace limner::gateway::http
