// Fuzzing of the URL reader: what is accepted is what is connected to, however it is read again.
#include <gtest/gtest.h>

#include "base/fuzzing.h"
#include "platform/http/url.h"

namespace limner::platform::http {
namespace {

void check_accepted(const Url& url, const std::string& text) {
  ASSERT_FALSE(url.host.empty()) << text;
  ASSERT_TRUE(url.target.starts_with('/')) << text;
  ASSERT_NE(url.port, 0) << text;
  for (const char c : url.host) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                       c == '[' || c == ']' || c == ':' || c == '_';
    ASSERT_TRUE(plain) << text;
  }
  for (const char c : url.text()) ASSERT_TRUE(c > 0x20 && c < 0x7f && c != '\\') << text;
  const auto again = parse_url(url.text());
  ASSERT_TRUE(again.ok()) << url.text();
  ASSERT_EQ(again->text(), url.text());
  ASSERT_EQ(again->host, url.host);
  ASSERT_EQ(url.shown().find('?'), std::string::npos) << text;
}

void check(const std::string& text) {
  static const Url base = parse_url("https://base.example/a/b?c").value();
  for (const auto& url : {parse_url(text), resolve(base, text)}) {
    if (url.ok()) {
      check_accepted(*url, text);
    } else {
      ASSERT_EQ(url.error().code, ErrorCode::kInvalidArgument);
      ASSERT_LT(url.error().message.size(), 1000u);
    }
  }
}

TEST(UrlFuzz, TheKeptCorpusIsReadOrRefused) {
  for (const auto& [file, text] : fuzzing::corpus("url")) {
    SCOPED_TRACE(file);
    check(text);
  }
}

TEST(UrlFuzz, DamagedUrlsAreReadOrRefused) {
  static constexpr const char* kPieces[] = {
      "@",        ":",        "/",          "//",       "\\",
      "?",        "#",        "[",          "]",        "%",
      "%00",      "%2e",      "..",         "/../",     "/./",
      ".",        "0x7f",     "127.1",      "::1",      "fe80::1%25eth0",
      "https://", "http:",    "\r\n",       "\t",       " ",
      "\x7f",     "\xc3\xa9", "\xff",       "xn--",     ":443",
      ":0",       ":65536",   "user:pass@", "localhost"};
  fuzzing::run_damaged("url", kPieces, check);
}

}  // namespace
}  // namespace limner::platform::http
