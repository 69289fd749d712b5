#include "gateway/http/target.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/utf8.h"
#include "delivery/percent.h"
#include "gateway/http/message.h"

namespace limner::gateway::http {

namespace {

[[noreturn]] void refuse(std::string detail) {
  throw ProblemFailure({.status = beast_http::status::bad_request,
                        .code = "bad_target",
                        .detail = std::move(detail)});
}

bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

std::string decode(std::string_view text, std::string_view what) {
  auto decoded = delivery::percent_decode(text);
  if (!decoded)
    refuse(fmt::format("The {} has a '%' that two hexadecimal digits do not follow.", what));
  if (std::any_of(decoded->begin(), decoded->end(), is_control))
    refuse(fmt::format("The {} holds a control character.", what));
  if (!decode_utf8(*decoded).ok()) refuse(fmt::format("The {} is not UTF-8.", what));
  return std::move(*decoded);
}

std::string decode_query(std::string_view text) {
  std::string spaced(text);
  std::replace(spaced.begin(), spaced.end(), '+', ' ');
  return decode(spaced, "query");
}

// Calls `use` with each part between separators; an empty text has one, empty part.
template <typename Use>
void split(std::string_view text, char separator, Use use) {
  for (;;) {
    const std::size_t end = text.find(separator);
    use(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

std::vector<std::string> read_path(std::string_view path) {
  std::vector<std::string> segments;
  split(path.substr(1), '/', [&](std::string_view part) {
    std::string segment = decode(part, "path");
    if (segment == "." || segment == "..") refuse("The path has a segment '.' or '..'.");
    if (segment.find_first_of("/\\") != std::string::npos)
      refuse("The path has an encoded slash or a backslash.");
    segments.push_back(std::move(segment));
  });
  return segments;
}

std::map<std::string, std::string> read_query(std::string_view text) {
  std::map<std::string, std::string> query;
  split(text, '&', [&](std::string_view part) {
    if (part.empty()) return;
    const std::size_t equals = part.find('=');
    std::string name = decode_query(part.substr(0, equals));
    std::string value =
        equals == std::string_view::npos ? std::string() : decode_query(part.substr(equals + 1));
    const auto [place, added] = query.emplace(std::move(name), std::move(value));
    if (!added) refuse(fmt::format("The query has '{}' twice.", place->first));
  });
  return query;
}

// What follows the authority of "http://host/path"; an origin form as it is.
std::string_view without_authority(std::string_view text) {
  if (text.starts_with('/')) return text;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!text.starts_with(scheme)) continue;
    const std::size_t end = text.find_first_of("/?", scheme.size());
    return end == std::string_view::npos ? "/" : text.substr(end);
  }
  refuse("The request's target is neither a path nor an http(s) URL.");
}

}  // namespace

Target parse_target(std::string_view text) {
  const bool plain = std::all_of(text.begin(), text.end(),
                                 [](char c) { return c > 0x20 && c < 0x7f && c != '#'; });
  if (!plain) refuse("The request's target has a character that must be percent-encoded.");
  Target target;
  if (text == "*") {
    target.path += '*';
    return target;
  }
  const std::string_view local = without_authority(text);
  const std::size_t question = local.find('?');
  target.path = local.substr(0, question);
  if (target.path.empty()) target.path += '/';
  target.segments = read_path(target.path);
  if (question != std::string_view::npos) target.query = read_query(local.substr(question + 1));
  return target;
}

}  // namespace limner::gateway::http
