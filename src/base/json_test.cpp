#include "base/json.h"

#include <gtest/gtest.h>

#include <string>

namespace limner {
namespace {

std::string error_of(std::string_view text, const JsonLimits& limits = {}) {
  const auto read = parse_json(text, limits);
  return read.ok() ? "" : read.error().message;
}

TEST(Json, ReadsWhatTheGrammarAllows) {
  const auto read = parse_json(R"( {"a": [1, -2.5e3, true, false, null], "": {"ü": "\u00e9\n"}} )");
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->dump(), R"({"":{"ü":"é\n"},"a":[1,-2500.0,true,false,null]})");
  for (const char* text : {"0", "\"\"", "[]", "{}", "null", "[[],{}]"})
    EXPECT_EQ(error_of(text), "") << text;
}

// Cases after "Parsing JSON is a minefield" (seriot.ch), which every reader of requests meets.
TEST(Json, RefusesWhatTheGrammarForbids) {
  for (const char* text : {"",
                           " ",
                           "{",
                           "[1,]",
                           "{\"a\":1,}",
                           "{a:1}",
                           "{'a':1}",
                           "[1 2]",
                           "[01]",
                           "[+1]",
                           "[.5]",
                           "[1.]",
                           "[1e]",
                           "[0x1]",
                           "NaN",
                           "[NaN]",
                           "[Infinity]",
                           "[-]",
                           "// c\n1",
                           "[1] /* c */",
                           "{} {}",
                           "[\"a",
                           "[\"\t\"]",
                           "[\"\\x41\"]",
                           "[\"\\ud800\"]",
                           "[\"\xff\"]",
                           "[\"\xc0\x80\"]",
                           "[\"\xed\xa0\x80\"]",
                           "[1e400]",
                           "tru",
                           "[1}",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{1:1}",
                           "[,1]"}) {
    EXPECT_NE(error_of(text).find("not valid JSON near byte "), std::string::npos) << text;
  }
  EXPECT_NE(error_of(std::string("{}\0{\"b\":1}", 10)).find("zero byte"), std::string::npos);
}

TEST(Json, RefusesAKeyThatOccursTwice) {
  EXPECT_EQ(error_of(R"({"a": 1, "b": {}, "a": 2})"), "the key 'a' occurs twice");
  EXPECT_EQ(error_of(R"([{"x": {"b": 1, "\u0062": 1}}])"), "the key 'b' occurs twice");
  EXPECT_EQ(error_of(R"([{"a": 1}, {"a": 1}])"), "");
}

TEST(Json, BoundsSizeDepthAndCount) {
  const JsonLimits limits{.bytes = 64, .depth = 3, .values = 8};
  EXPECT_EQ(error_of("[[[0]]]", limits), "");
  EXPECT_EQ(error_of("[[[[0]]]]", limits), "JSON nested deeper than 3 levels");
  EXPECT_EQ(error_of("[1,2,3,4,5,6,7]", limits), "");
  EXPECT_EQ(error_of("[1,2,3,4,5,6,7,8]", limits), "more than 8 JSON values");
  EXPECT_EQ(error_of(std::string(65, ' '), limits), "JSON larger than 64 bytes");
  EXPECT_EQ(error_of(std::string(17u << 20, ' ')), "JSON larger than 16 MiB");
  EXPECT_EQ(error_of(std::string(1'000'000, '[')), "JSON nested deeper than 64 levels");
}

TEST(Json, MessagesHoldNoRawBytesOfTheText) {
  const std::string message = error_of("{\"a\x01\": 1}");
  for (const char c : message) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << message;
}

TEST(Json, KnowsTheLineOfEveryValue) {
  JsonLines lines;
  ASSERT_TRUE(parse_json("{\n\"a\": [\n1,\n2\n],\n\"b/c\":\n3\n}", {}, &lines).ok());
  EXPECT_EQ(lines.line_of(""), 1u);
  EXPECT_EQ(lines.line_of("/a"), 2u);
  EXPECT_EQ(lines.line_of("/a/0"), 3u);
  EXPECT_EQ(lines.line_of("/a/1"), 4u);
  EXPECT_EQ(lines.line_of("/b~1c"), 6u);
  EXPECT_EQ(lines.line_of("/a/7/x"), 2u);
}

TEST(Json, NamesTheLineWhenLinesAreWanted) {
  JsonLines lines;
  const auto message = [&](std::string_view text) {
    return parse_json(text, {}, &lines).error().message;
  };
  EXPECT_TRUE(message("{\n\"a\": 1\n\"b\": 2}").starts_with("line 3: not valid JSON ("));
  EXPECT_EQ(message("{\n\"a\": 1,\n\"a\": 2}"), "line 3: the key 'a' occurs twice");
}

}  // namespace
}  // namespace limner
