#include "platform/http/url.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "platform/http/address.h"

namespace limner::platform::http {
namespace {

constexpr std::size_t kMaxBytes = 8192;

[[noreturn]] void refuse(std::string_view why) {
  throw Failure(ErrorCode::kInvalidArgument, fmt::format("[download] the URL {}", why));
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_letter(char c) {
  return c >= 'a' && c <= 'z';
}

std::string lower(std::string_view text) {
  std::string low(text);
  for (char& c : low) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return low;
}

void check_length(std::string_view text) {
  if (text.size() > kMaxBytes) refuse(fmt::format("is longer than {} bytes", kMaxBytes));
}

void check_characters(std::string_view text) {
  if (text.empty()) refuse("is empty");
  check_length(text);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) refuse("holds a control character");
    if (c == '\\') refuse("holds a backslash");
  }
}

// A last label that begins as a number makes some programs read the whole host as an IPv4 address.
bool reads_as_number(std::string_view label) {
  if (label.starts_with("0x")) return true;
  return std::all_of(label.begin(), label.end(), is_digit);
}

void check_name(std::string_view host) {
  if (host.empty()) refuse("has no host");
  if (host.size() > 253) refuse("has a host of more than 253 characters");
  if (host.ends_with('.')) refuse("has a host that ends in a dot");
  std::string_view rest = host, label;
  while (true) {
    const auto dot = rest.find('.');
    label = rest.substr(0, dot);
    if (label.empty() || label.size() > 63) refuse("has a host with an empty or overlong part");
    if (label.starts_with('-') || label.ends_with('-')) refuse("has a host with a stray hyphen");
    if (dot == std::string_view::npos) break;
    rest = rest.substr(dot + 1);
  }
  for (const char c : host) {
    if (static_cast<unsigned char>(c) > 0x7f) {
      refuse("has a host outside ASCII; wanted is its xn-- form");
    }
    if (!is_letter(c) && !is_digit(c) && c != '-' && c != '.' && c != '_') {
      refuse(fmt::format("has a host with the character '{}'", c));
    }
  }
  if (reads_as_number(label) && !parse_address(host)) {
    refuse("has a number for a host; wanted is a name, or an address as four decimal numbers");
  }
}

std::uint16_t parse_port(std::string_view digits) {
  if (digits.empty() || digits.size() > 5 || !std::all_of(digits.begin(), digits.end(), is_digit)) {
    refuse("has a port that is not a number");
  }
  const int port = std::stoi(std::string(digits));
  if (port < 1 || port > 65535) refuse("has a port outside 1..65535");
  return static_cast<std::uint16_t>(port);
}

void parse_authority(std::string_view authority, Url& url) {
  if (authority.find('@') != std::string_view::npos) {
    refuse("has a user name or password before its host; none is sent from there");
  }
  std::string_view host = authority, port;
  bool has_port = false;
  if (authority.starts_with('[')) {
    const auto end = authority.find(']');
    if (end == std::string_view::npos) refuse("has a bracket that is not closed");
    host = authority.substr(0, end + 1);
    const std::string_view rest = authority.substr(end + 1);
    if (!rest.empty() && rest.front() != ':') refuse("has something odd after its host");
    has_port = !rest.empty();
    if (has_port) port = rest.substr(1);
    const auto address = parse_address(host.substr(1, host.size() - 2));
    if (!address || address->v4) refuse("has brackets around something other than IPv6");
    url.host = fmt::format("[{}]", to_string(*address));
  } else {
    const auto colon = authority.find(':');
    has_port = colon != std::string_view::npos;
    host = authority.substr(0, colon);
    if (has_port) port = authority.substr(colon + 1);
    url.host = lower(host);
    check_name(url.host);
  }
  if (has_port) url.port = parse_port(port);
}

std::string encode_target(std::string_view target) {
  std::string encoded = target.starts_with('/') ? "" : "/";
  for (const char c : target) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == ' ' || byte > 0x7f) {
      encoded += fmt::format("%{:02X}", byte);
    } else {
      encoded += c;
    }
  }
  return encoded;
}

// The scheme in lower case where `text` begins with one.
std::optional<std::string> scheme_of(std::string_view text) {
  const auto colon = text.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const std::string scheme = lower(text.substr(0, colon));
  const bool good = !scheme.empty() && is_letter(scheme.front()) &&
                    std::all_of(scheme.begin(), scheme.end(), [](char c) {
                      return is_letter(c) || is_digit(c) || c == '+' || c == '-' || c == '.';
                    });
  return good ? std::optional(scheme) : std::nullopt;
}

Url parse(std::string_view text) {
  check_characters(text);
  const auto scheme = scheme_of(text);
  if (!scheme || (*scheme != "https" && *scheme != "http")) {
    refuse("does not begin with https://");
  }
  std::string_view rest = text.substr(scheme->size() + 1);
  if (!rest.starts_with("//")) refuse("does not begin with https://");
  rest.remove_prefix(2);
  rest = rest.substr(0, rest.find('#'));
  const auto path = rest.find_first_of("/?");
  Url url;
  url.https = *scheme == "https";
  url.port = url.https ? 443 : 80;
  parse_authority(rest.substr(0, path), url);
  url.target = path == std::string_view::npos ? "/" : encode_target(rest.substr(path));
  check_length(url.text());  // %XX is longer than what it stands for
  return url;
}

// RFC 3986, section 5.2.4, for a path that begins with '/'.
std::string remove_dot_segments(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    const auto next = std::min(path.find('/', 1), path.size());
    const std::string_view segment = path.substr(0, next);
    path.remove_prefix(next);
    if (segment == "/..") out.erase(std::min(out.rfind('/'), out.size()));
    if (segment == "/." || segment == "/..") {
      if (path.empty()) out += '/';
    } else {
      out += segment;
    }
  }
  return out;
}

Url resolve_or_throw(const Url& base, std::string_view location) {
  check_characters(location);
  if (scheme_of(location.substr(0, location.find_first_of("/?#")))) return parse(location);
  if (location.starts_with("//"))
    return parse((base.https ? "https:" : "http:") + std::string(location));
  location = location.substr(0, location.find('#'));
  const std::string_view target = base.target;
  const std::string_view path = target.substr(0, target.find('?'));
  std::string merged;
  if (location.empty()) {
    merged = target;
  } else if (location.starts_with('?')) {
    merged = std::string(path) + std::string(location);
  } else {
    const auto query = std::min(location.find('?'), location.size());
    std::string full(location.substr(0, query));
    if (!full.starts_with('/')) full = std::string(path.substr(0, path.rfind('/') + 1)) + full;
    merged = remove_dot_segments(full) + std::string(location.substr(query));
  }
  Url url = base;
  url.target = encode_target(merged);
  check_length(url.text());
  return url;
}

}  // namespace

std::string Url::authority() const {
  return port == (https ? 443 : 80) ? host : fmt::format("{}:{}", host, port);
}

std::string Url::text() const {
  return (https ? "https://" : "http://") + authority() + target;
}

std::string Url::shown() const {
  return (https ? "https://" : "http://") + authority() + target.substr(0, target.find('?'));
}

Result<Url> parse_url(std::string_view text) {
  try {
    return parse(text);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<Url> resolve(const Url& base, std::string_view location) {
  try {
    return resolve_or_throw(base, location);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::platform::http
