#include "platform/http/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <span>

namespace limner::platform::http {
namespace {

constexpr int kMappedPrefix = 96;

IpAddress from_v4(const std::uint8_t* bytes) {
  IpAddress address{.v4 = true};
  address.bytes[10] = address.bytes[11] = 0xff;
  std::copy_n(bytes, 4, address.bytes.begin() + 12);
  return address;
}

struct SpecialRange {
  std::string_view range, what;
};

// IANA IPv4 Special-Purpose Address Registry, and multicast.
constexpr SpecialRange kSpecialV4[] = {
    {"0.0.0.0/8", "an address of this network"},
    {"10.0.0.0/8", "a private address"},
    {"100.64.0.0/10", "a carrier's shared address"},
    {"127.0.0.0/8", "a loopback address"},
    {"169.254.0.0/16", "a link-local address"},
    {"172.16.0.0/12", "a private address"},
    {"192.0.0.0/24", "an address of protocol assignments"},
    {"192.0.2.0/24", "an address for documentation"},
    {"192.31.196.0/24", "an AS112 address"},
    {"192.52.193.0/24", "an AMT relay address"},
    {"192.88.99.0/24", "a 6to4 relay address"},
    {"192.168.0.0/16", "a private address"},
    {"192.175.48.0/24", "an AS112 address"},
    {"198.18.0.0/15", "an address for benchmarks"},
    {"198.51.100.0/24", "an address for documentation"},
    {"203.0.113.0/24", "an address for documentation"},
    {"224.0.0.0/4", "a multicast address"},
    {"240.0.0.0/4", "a reserved address"},
};

// IANA IPv6 Special-Purpose Address Registry, and multicast. The last row is all that is left
// outside global unicast.
constexpr SpecialRange kSpecialV6[] = {
    {"::1/128", "a loopback address"},
    {"::/128", "the unspecified address"},
    {"::ffff:0:0/96", "an IPv4-mapped address"},
    {"64:ff9b::/96", "an IPv4 address behind NAT64"},
    {"64:ff9b:1::/48", "an IPv4 address behind NAT64"},
    {"100::/64", "a discard-only address"},
    {"100:0:0:1::/64", "a dummy address"},
    {"2001::/32", "a Teredo address"},
    {"2001::/23", "an address of protocol assignments"},
    {"2001:db8::/32", "an address for documentation"},
    {"2002::/16", "a 6to4 address"},
    {"2620:4f:8000::/48", "an AS112 address"},
    {"3fff::/20", "an address for documentation"},
    {"5f00::/16", "a segment-routing address"},
    {"fc00::/7", "a private address"},
    {"fe80::/10", "a link-local address"},
    {"fec0::/10", "a site-local address"},
    {"ff00::/8", "a multicast address"},
    {"::/3", "a reserved address"},
    {"4000::/2", "a reserved address"},
    {"8000::/1", "a reserved address"},
};

std::optional<AddressRange> parse_range(std::string_view text) {
  const auto slash = text.find('/');
  const auto address = parse_address(text.substr(0, slash));
  if (!address) return std::nullopt;
  const int most = address->v4 ? 32 : 128;
  if (slash == std::string_view::npos) return AddressRange{*address, most};
  const std::string_view digits = text.substr(slash + 1);
  if (digits.empty() || digits.size() > 3 ||
      digits.find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  const int prefix = std::stoi(std::string(digits));
  if (prefix > most) return std::nullopt;
  return AddressRange{*address, prefix};
}

struct NamedRange {
  AddressRange range;
  std::string_view what;
};

std::vector<NamedRange> special_ranges() {
  std::vector<NamedRange> ranges;
  const auto add = [&](std::span<const SpecialRange> rows) {
    for (const SpecialRange& row : rows) {
      const auto range = parse_range(row.range);
      LIMNER_CHECK(range.has_value(), row.range);
      ranges.push_back({*range, row.what});
    }
  };
  add(kSpecialV4);
  add(kSpecialV6);
  return ranges;
}

}  // namespace

std::optional<IpAddress> parse_address(std::string_view text) {
  const std::string copy(text);
  if (copy.find('\0') != std::string::npos) return std::nullopt;
  // inet_pton takes exactly the forms promised, and no leading zeros.
  std::array<std::uint8_t, 4> v4{};
  if (inet_pton(AF_INET, copy.c_str(), v4.data()) == 1) return from_v4(v4.data());
  IpAddress v6;
  if (inet_pton(AF_INET6, copy.c_str(), v6.bytes.data()) == 1) return v6;
  return std::nullopt;
}

std::optional<IpAddress> from_socket(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &address, sizeof in);
    std::array<std::uint8_t, 4> bytes{};
    std::memcpy(bytes.data(), &in.sin_addr, bytes.size());
    return from_v4(bytes.data());
  }
  if (address.sa_family == AF_INET6) {
    // Through void: the caller's object is a sockaddr_in6 seen by its first members.
    const auto* in = static_cast<const sockaddr_in6*>(static_cast<const void*>(&address));
    IpAddress v6;
    std::memcpy(v6.bytes.data(), &in->sin6_addr, v6.bytes.size());
    return v6;
  }
  return std::nullopt;
}

std::string to_string(const IpAddress& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const std::uint8_t* bytes = address.bytes.data() + (address.v4 ? 12 : 0);
  inet_ntop(address.v4 ? AF_INET : AF_INET6, bytes, text.data(), text.size());
  return text.data();
}

bool AddressRange::contains(const IpAddress& address) const {
  if (address.v4 != first.v4) return false;
  int bits = first.v4 ? kMappedPrefix + prefix : prefix;
  for (std::size_t i = 0; i < first.bytes.size() && bits > 0; ++i, bits -= 8) {
    const auto mask = static_cast<std::uint8_t>(bits >= 8 ? 0xff : 0xff << (8 - bits));
    if (((first.bytes[i] ^ address.bytes[i]) & mask) != 0) return false;
  }
  return true;
}

std::string_view special_use(const IpAddress& address) {
  static const std::vector<NamedRange> ranges = special_ranges();
  for (const NamedRange& named : ranges) {
    if (named.range.contains(address)) return named.what;
  }
  return "";
}

Result<std::vector<AddressRange>> parse_address_ranges(std::string_view text) {
  std::vector<AddressRange> ranges;
  while (!text.empty()) {
    const auto comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    if (part.empty()) continue;
    const auto range = parse_range(part);
    if (!range) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("'{}' is not an address range; wanted is something like 10.0.0.0/8 "
                               "or fd00::/8",
                               part.substr(0, 64))};
    }
    ranges.push_back(*range);
  }
  return ranges;
}

}  // namespace limner::platform::http
