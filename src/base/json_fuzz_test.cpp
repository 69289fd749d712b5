// Fuzzing of the JSON reader: damaged documents are read or refused, never crash, and what is
// accepted means the same when it is written and read again.
#include <gtest/gtest.h>

#include "base/fuzzing.h"
#include "base/json.h"

namespace limner {
namespace {

void check(const std::string& text) {
  const JsonLimits limits{.bytes = 1u << 20, .depth = 16, .values = 2000};
  JsonLines lines;
  const auto read = parse_json(text, limits), located = parse_json(text, limits, &lines);
  ASSERT_EQ(read.ok(), located.ok()) << text;
  if (read.ok()) {
    ASSERT_EQ(*read, *located);
    const auto again = parse_json(read->dump(), limits);
    ASSERT_TRUE(again.ok()) << text;
    ASSERT_EQ(*again, *read) << text;
    return;
  }
  for (const Error& error : {read.error(), located.error()}) {
    ASSERT_EQ(error.code, ErrorCode::kInvalidArgument);
    ASSERT_LT(error.message.size(), 500u);
    for (const char c : error.message) ASSERT_GE(static_cast<unsigned char>(c), 0x20) << text;
  }
}

TEST(JsonFuzz, TheKeptCorpusIsReadOrRefused) {
  for (const auto& [file, text] : fuzzing::corpus("json")) {
    check(text);
    const bool good = file.filename().string().starts_with("good");
    EXPECT_EQ(parse_json(text).ok(), good) << file;
  }
}

TEST(JsonFuzz, DamagedDocumentsAreReadOrRefused) {
  static constexpr const char* kPieces[] = {"[",
                                            "]",
                                            "{",
                                            "}",
                                            ":",
                                            ",",
                                            "\"",
                                            "\\",
                                            "\\u0000",
                                            "\\ud800",
                                            "\\udc00",
                                            "null",
                                            "true",
                                            "-",
                                            "0",
                                            "1e400",
                                            "1e-400",
                                            "9223372036854775808",
                                            "18446744073709551616",
                                            "-0",
                                            "NaN",
                                            "\xff",
                                            "\xed\xa0\x80",
                                            "/*",
                                            "//",
                                            "\n",
                                            "\"a\":1,",
                                            "\xef\xbb\xbf"};
  fuzzing::run_damaged("json", kPieces, check);
}

}  // namespace
}  // namespace limner
