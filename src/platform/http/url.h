// URLs as downloads take them: strict, so that what is checked is what is connected to.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace limner::platform::http {

struct Url {
  bool https = true;
  std::string host{};  // lower case; an IPv6 address in brackets
  std::uint16_t port = 443;
  std::string target{};  // path and query, at least "/", ASCII; the fragment is left out

  std::string text() const;       // what is requested
  std::string authority() const;  // host, with the port where it is not the scheme's own
  // For messages: without the query, which may hold a key or a signature.
  std::string shown() const;
};

// https://host[:port][/path][?query], or http://. Refused with one sentence (kInvalidArgument):
// other schemes, a user or password before the host, numbers that other programs take for IPv4
// addresses (decimal, octal, hexadecimal, short), a trailing dot, names outside ASCII (want xn--),
// percent signs and other odd characters in the host, control characters and backslashes anywhere,
// more than 8192 bytes, as given or as requested. Spaces and bytes above 7F in path and query
// become %XX.
Result<Url> parse_url(std::string_view text);

// A Location header's value seen from `base` (RFC 3986, section 5.2). Errors as parse_url.
Result<Url> resolve(const Url& base, std::string_view location);

}  // namespace limner::platform::http
