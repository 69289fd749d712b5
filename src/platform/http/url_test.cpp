#include "platform/http/url.h"

#include <gtest/gtest.h>

#include <utility>

namespace limner::platform::http {
namespace {

TEST(Url, PartsAndTextAgree) {
  const Url url = parse_url("HTTPS://Example.COM:8443/a/b?x=1&y=2#part").value();
  EXPECT_TRUE(url.https);
  EXPECT_EQ(url.host, "example.com");
  EXPECT_EQ(url.port, 8443);
  EXPECT_EQ(url.target, "/a/b?x=1&y=2");
  EXPECT_EQ(url.text(), "https://example.com:8443/a/b?x=1&y=2");
  EXPECT_EQ(url.authority(), "example.com:8443");
  EXPECT_EQ(url.shown(), "https://example.com:8443/a/b") << "a query may hold a key";
  EXPECT_EQ(parse_url("https://example.com").value().text(), "https://example.com/");
  EXPECT_EQ(parse_url("https://example.com?q").value().text(), "https://example.com/?q");
  EXPECT_EQ(parse_url("https://example.com:443/").value().text(), "https://example.com/");
  EXPECT_EQ(parse_url("https://example.com/a b/\xc3\xa9").value().target, "/a%20b/%C3%A9");
  EXPECT_EQ(parse_url("https://[2001:DB8::1]:444/").value().authority(), "[2001:db8::1]:444");
  EXPECT_EQ(parse_url("https://1.2.3.4/").value().host, "1.2.3.4");
  EXPECT_EQ(parse_url("https://xn--bcher-kva.example/").value().host, "xn--bcher-kva.example");
  EXPECT_EQ(parse_url("http://a.example/").value().authority(), "a.example");
  EXPECT_EQ(parse_url("http://a.example/").value().port, 80);
}

TEST(Url, WhatAnAttackerWouldWriteIsRefused) {
  const std::string zero("https://exam\0ple.com/", 21);
  for (const std::string& text :
       {std::string(""), std::string("example.com"), std::string("//example.com/"),
        std::string("ftp://example.com/"), std::string("file:///etc/passwd"),
        std::string("gopher://127.0.0.1:6379/_x"), std::string("data:text/plain,x"),
        std::string("javascript:alert(1)"), std::string("https:/example.com"),
        std::string("https:example.com"), std::string("https://"), std::string("https:///path"),
        // a user before the host, also with the host hidden behind it
        std::string("https://user@example.com/"), std::string("https://user:pass@example.com/"),
        std::string("https://example.com@127.0.0.1/"), std::string("https://@example.com/"),
        std::string("https://example.com:80@127.0.0.1/"),
        std::string("https://example.com%40127.0.0.1/"),
        // spellings of 127.0.0.1 and 169.254.169.254
        std::string("https://2130706433/"), std::string("https://0x7f000001/"),
        std::string("https://0X7F.1/"), std::string("https://017700000001/"),
        std::string("https://0177.0.0.1/"), std::string("https://127.1/"),
        std::string("https://127.0.1/"), std::string("https://127.0.0.01/"),
        std::string("https://127.0.0.0x1/"), std::string("https://0/"), std::string("https://0.0/"),
        std::string("https://2852039166/"), std::string("https://0xa9fea9fe/"),
        std::string("https://425.510.425.510/"), std::string("https://127.0.0.1./"),
        std::string("https://127.0.0.1.1/"), std::string("https://foo.1/"),
        // hosts that another program may read otherwise
        std::string("https://example.com./"), std::string("https://.example.com/"),
        std::string("https://a..b/"), std::string("https://exa mple.com/"),
        std::string("https://ex%61mple.com/"), std::string("https://127%2e0.0.1/"),
        std::string("https://example.com\\@127.0.0.1/"), std::string("https:\\\\example.com/"),
        std::string("https://example.com\t/"), std::string("https://example.com/\r\nHost: x"), zero,
        std::string("https://b\xc3\xbc"
                    "cher.example/"),
        std::string("https://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.1/"),
        std::string("https://-a.example/"), std::string("https://a-.example/"),
        std::string("https://a;b.example/"), std::string("https://a,b.example/"),
        std::string("https://localhost'/"), std::string("https://*.example.com/"),
        // ports
        std::string("https://example.com:/"), std::string("https://example.com:0/"),
        std::string("https://example.com:65536/"), std::string("https://example.com:-1/"),
        std::string("https://example.com:443x/"), std::string("https://example.com:80:80/"),
        std::string("https://example.com:000443/"),
        // IPv6
        std::string("https://[::1/"), std::string("https://::1/"), std::string("https://[::1]x/"),
        std::string("https://[fe80::1%25eth0]/"), std::string("https://[127.0.0.1]/"),
        std::string("https://[]/"), std::string("https://[::1]:x/"),
        "https://" + std::string(64, 'a') + ".example/",
        "https://example.com/" + std::string(9000, 'a'),
        "https://example.com/" + std::string(8000, ' ')}) {
    EXPECT_FALSE(parse_url(text).ok()) << text.substr(0, 80);
  }
}

TEST(Url, MessagesShowNoSecret) {
  const auto url = parse_url("https://user:secret@example.com/?token=hidden");
  ASSERT_FALSE(url.ok());
  EXPECT_EQ(url.error().message.find("secret"), std::string::npos);
  EXPECT_EQ(url.error().message.find("hidden"), std::string::npos);
}

// RFC 3986, sections 5.4.1 and 5.4.2.
TEST(Url, RelativeLocationsResolveAsTheRfcSays) {
  const Url base = parse_url("http://a/b/c/d;p?q").value();
  for (const auto& [location, wanted] :
       std::initializer_list<std::pair<const char*, const char*>>{{"g", "/b/c/g"},
                                                                  {"./g", "/b/c/g"},
                                                                  {"g/", "/b/c/g/"},
                                                                  {"/g", "/g"},
                                                                  {"?y", "/b/c/d;p?y"},
                                                                  {"g?y", "/b/c/g?y"},
                                                                  {"#s", "/b/c/d;p?q"},
                                                                  {"g#s", "/b/c/g"},
                                                                  {"g?y#s", "/b/c/g?y"},
                                                                  {";x", "/b/c/;x"},
                                                                  {"g;x", "/b/c/g;x"},
                                                                  {".", "/b/c/"},
                                                                  {"./", "/b/c/"},
                                                                  {"..", "/b/"},
                                                                  {"../", "/b/"},
                                                                  {"../g", "/b/g"},
                                                                  {"../..", "/"},
                                                                  {"../../", "/"},
                                                                  {"../../g", "/g"},
                                                                  {"../../../g", "/g"},
                                                                  {"/./g", "/g"},
                                                                  {"/../g", "/g"},
                                                                  {"g.", "/b/c/g."},
                                                                  {"..g", "/b/c/..g"},
                                                                  {"./../g", "/b/g"},
                                                                  {"g/./h", "/b/c/g/h"},
                                                                  {"g/../h", "/b/c/h"},
                                                                  {"g;x=1/../y", "/b/c/y"},
                                                                  {"g?y/../x", "/b/c/g?y/../x"}}) {
    const auto url = resolve(base, location);
    ASSERT_TRUE(url.ok()) << location;
    EXPECT_EQ(url->target, wanted) << location;
    EXPECT_EQ(url->host, "a");
  }
  EXPECT_EQ(resolve(base, "//g/x").value().text(), "http://g/x");
  EXPECT_EQ(resolve(base, "https://other.example/x").value().text(), "https://other.example/x");
  EXPECT_FALSE(resolve(base, "").ok());
  EXPECT_FALSE(resolve(base, "file:///etc/passwd").ok());
  EXPECT_FALSE(resolve(base, "//user@g/").ok());
}

}  // namespace
}  // namespace limner::platform::http
