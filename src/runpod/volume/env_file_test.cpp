#include "runpod/volume/env_file.h"

#include <gtest/gtest.h>

namespace limner::runpod {
namespace {

std::string value_of(const std::string& line) {
  const auto values = parse_env_file(line + "\n", ".env");
  if (!values.ok()) return "refused: " + values.error().message;
  return values->at("A");
}

TEST(EnvFile, ValuesAreTakenAsTheyStand) {
  EXPECT_EQ(value_of("A=b"), "b");
  EXPECT_EQ(value_of("export A=b"), "b");
  EXPECT_EQ(value_of("  A= b c \r"), "b c");
  EXPECT_EQ(value_of("A="), "");
  EXPECT_EQ(value_of("A=b=c"), "b=c");
  EXPECT_EQ(value_of("A=b # said"), "b");
  EXPECT_EQ(value_of("A=b#c"), "b#c");
  EXPECT_EQ(value_of("A= # nothing"), "");
  EXPECT_EQ(value_of("A='b # $c \\n'  # said"), "b # $c \\n");
  EXPECT_EQ(value_of(R"(A="a\"b\\c\n\$d")"), "a\"b\\c\n$d");
  EXPECT_EQ(value_of("A=$HOME"), "$HOME");
}

TEST(EnvFile, CommentsAndEmptyLinesAreNothing) {
  const auto values = parse_env_file("\xEF\xBB\xBF# first\n\n  # more\r\nA=1\nB=2", ".env");
  ASSERT_TRUE(values.ok());
  EXPECT_EQ(values->size(), 2u);
}

TEST(EnvFile, WhatIsWrongIsToldWithItsLineAndWithoutAnyValue) {
  const std::pair<const char*, const char*> cases[] = {
      {"secret", ".env:2: want NAME=VALUE"},
      {"KEY = secret", ".env:2: a name has"},
      {"1KEY=secret", ".env:2: a name has"},
      {"KEY='secret", ".env:2: the quote is not closed"},
      {"KEY=\"secret\\q\"", ".env:2: after a backslash"},
      {"KEY='secret' and", ".env:2: there is more"},
      {"KEY=sec'ret", ".env:2: a quote inside"},
      {"A=secret", ".env:2: A is set already"}};
  for (const auto& [line, wanted] : cases) {
    const auto values = parse_env_file("A=1\n" + std::string(line) + "\n", ".env");
    ASSERT_FALSE(values.ok()) << line;
    EXPECT_EQ(values.error().message.rfind(wanted, 0), 0u) << values.error().message;
    EXPECT_EQ(values.error().message.find("secret"), std::string::npos);
  }
}

TEST(EnvFile, AFileThatIsNotThereIsNotFound) {
  EXPECT_EQ(read_env_file("/nowhere/.env").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace limner::runpod
