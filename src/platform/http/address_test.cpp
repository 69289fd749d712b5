#include "platform/http/address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

namespace limner::platform::http {
namespace {

std::string_view use(const char* text) {
  const auto address = parse_address(text);
  return address ? special_use(*address) : "not an address";
}

// The first and the last address of every range of the IANA special-purpose registries.
TEST(Address, SpecialPurposeRangesAreNotPublic) {
  for (const char* text :
       {"0.0.0.0",         "0.255.255.255",   "10.0.0.0",        "10.255.255.255",
        "100.64.0.0",      "100.127.255.255", "127.0.0.0",       "127.0.0.1",
        "127.255.255.255", "169.254.0.0",     "169.254.169.254", "169.254.255.255",
        "172.16.0.0",      "172.31.255.255",  "192.0.0.0",       "192.0.0.170",
        "192.0.0.255",     "192.0.2.0",       "192.0.2.255",     "192.31.196.1",
        "192.52.193.1",    "192.88.99.0",     "192.88.99.255",   "192.168.0.0",
        "192.168.255.255", "192.175.48.1",    "198.18.0.0",      "198.19.255.255",
        "198.51.100.0",    "198.51.100.255",  "203.0.113.0",     "203.0.113.255",
        "224.0.0.0",       "239.255.255.255", "240.0.0.0",       "255.255.255.254",
        "255.255.255.255"}) {
    EXPECT_NE(use(text), "") << text;
    EXPECT_NE(use(text), "not an address") << text;
  }
  for (const char* text : {"::",
                           "::1",
                           "::7f00:1",
                           "::ffff:0:0",
                           "::ffff:127.0.0.1",
                           "::ffff:8.8.8.8",
                           "::ffff:ffff:ffff",
                           "64:ff9b::",
                           "64:ff9b::808:808",
                           "64:ff9b:1::1",
                           "100::",
                           "100::1",
                           "100:0:0:1::1",
                           "2001::",
                           "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                           "2001:2::1",
                           "2001:1ff:ffff::",
                           "2001:db8::",
                           "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                           "2002::",
                           "2002:7f00:1::",
                           "2002:ffff::1",
                           "2620:4f:8000::1",
                           "3fff::",
                           "3fff:fff::1",
                           "5f00::1",
                           "4000::1",
                           "8000::1",
                           "c000::1",
                           "e000::1",
                           "fc00::1",
                           "fd00:ec2::254",
                           "fdff::1",
                           "fe80::1",
                           "febf::1",
                           "fec0::1",
                           "feff::1",
                           "ff02::1",
                           "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                           "1::1"}) {
    EXPECT_NE(use(text), "") << text;
    EXPECT_NE(use(text), "not an address") << text;
  }
}

// The neighbours of those ranges on both sides.
TEST(Address, ThePublicInternetIsPublic) {
  for (const char* text :
       {"1.0.0.0",         "8.8.8.8",         "9.255.255.255",   "11.0.0.0",
        "100.63.255.255",  "100.128.0.0",     "126.255.255.255", "128.0.0.0",
        "169.253.255.255", "169.255.0.0",     "172.15.255.255",  "172.32.0.0",
        "191.255.255.255", "192.0.1.0",       "192.0.3.0",       "192.88.98.255",
        "192.88.100.0",    "192.167.255.255", "192.169.0.0",     "198.17.255.255",
        "198.20.0.0",      "198.51.99.255",   "198.51.101.0",    "203.0.112.255",
        "203.0.114.0",     "223.255.255.255", "2001:200::1",     "2001:4860:4860::8888",
        "2001:db7::1",     "2001:db9::1",     "2003::1",         "2606:4700::1111",
        "2a00:1450::1",    "3ffe::1",         "3fff:1000::1"}) {
    EXPECT_EQ(use(text), "") << text;
  }
}

TEST(Address, OnlyTheUsualFormsAreAddresses) {
  for (const char* text : {"", "1", "127.1", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.01", "2130706433",
                           "127.0.0.1.", "256.0.0.1", "1.2.3.4.5", " 1.2.3.4", "1.2.3.4 ",
                           "fe80::1%eth0", "[::1]", ":::", "1::2::3", "12345::"}) {
    EXPECT_FALSE(parse_address(text)) << text;
  }
  EXPECT_FALSE(parse_address(std::string_view("1.2.3.4\0x", 9)));
}

TEST(Address, SocketAddressesSayTheSame) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_addr.s_addr = htonl(0x7f000001);
  const auto loopback = from_socket(*reinterpret_cast<const sockaddr*>(&v4));
  ASSERT_TRUE(loopback);
  EXPECT_EQ(to_string(*loopback), "127.0.0.1");
  EXPECT_EQ(special_use(*loopback), "a loopback address");
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  ASSERT_EQ(inet_pton(AF_INET6, "::ffff:127.0.0.1", &v6.sin6_addr), 1);
  const auto mapped = from_socket(*reinterpret_cast<const sockaddr*>(&v6));
  ASSERT_TRUE(mapped);
  EXPECT_EQ(special_use(*mapped), "an IPv4-mapped address");
  sockaddr other{};
  other.sa_family = AF_UNIX;
  EXPECT_FALSE(from_socket(other));
}

TEST(AddressRanges, HoldWhatTheyName) {
  const auto ranges = parse_address_ranges("127.0.0.0/8, 10.1.2.3,fd00::/7,");
  ASSERT_TRUE(ranges.ok());
  ASSERT_EQ(ranges->size(), 3u);
  const auto holds = [&](std::size_t index, const char* text) {
    return (*ranges)[index].contains(*parse_address(text));
  };
  EXPECT_TRUE(holds(0, "127.255.0.1"));
  EXPECT_FALSE(holds(0, "128.0.0.1"));
  EXPECT_FALSE(holds(0, "::ffff:127.0.0.1")) << "IPv6 is not let in by a range of IPv4";
  EXPECT_TRUE(holds(1, "10.1.2.3"));
  EXPECT_FALSE(holds(1, "10.1.2.2"));
  EXPECT_TRUE(holds(2, "fd12::1"));
  EXPECT_TRUE(holds(2, "fc12::1"));
  EXPECT_FALSE(holds(2, "fe80::1"));
  EXPECT_TRUE(parse_address_ranges("").value().empty());
  EXPECT_TRUE(parse_address_ranges("0.0.0.0/0").value()[0].contains(*parse_address("9.9.9.9")));
}

TEST(AddressRanges, WhatIsNoRangeIsNamed) {
  for (const char* text : {"localhost", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0/8",
                           "::1/129", "10.0.0.0/8;127.0.0.1", "*", "10.0.0.0/0x8"}) {
    const auto ranges = parse_address_ranges(text);
    ASSERT_FALSE(ranges.ok()) << text;
    EXPECT_NE(ranges.error().message.find(text), std::string::npos) << ranges.error().message;
  }
}

}  // namespace
}  // namespace limner::platform::http
