// Internet addresses, and which of them a download may reach. A URL that a stranger chose must not
// make this machine speak to itself, to its neighbours or to a cloud's metadata service.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

struct sockaddr;

namespace limner::platform::http {

// An IPv4 address is held in its IPv4-mapped form, ::ffff:a.b.c.d, with `v4` set: an address that
// came as IPv6 in that form has it not set and is not the same.
struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};
  bool v4 = false;
};

// The usual text forms only: four decimal numbers without leading zeros, or RFC 4291 without a
// zone.
std::optional<IpAddress> parse_address(std::string_view text);
// Of an AF_INET or AF_INET6 socket address; nothing for any other family.
std::optional<IpAddress> from_socket(const sockaddr& address);
std::string to_string(const IpAddress& address);

// What keeps an address from being a public host's, such as "a loopback address"; "" for a public
// one. Rules: the IANA special-purpose registries for IPv4 and IPv6 and the multicast ranges; of
// IPv6 only global unicast (2000::/3) is public, without 6to4 and Teredo, which carry IPv4 inside.
std::string_view special_use(const IpAddress& address);

struct AddressRange {
  IpAddress first;
  int prefix = 0;  // leading bits that count: 0..32 of an IPv4 address, 0..128 of an IPv6 one
  bool contains(const IpAddress& address) const;
};

// "127.0.0.0/8, 10.1.2.3, fd00::/8": ranges and single addresses, separated by commas. Errors:
// kInvalidArgument naming the part that is neither.
Result<std::vector<AddressRange>> parse_address_ranges(std::string_view text);

}  // namespace limner::platform::http
