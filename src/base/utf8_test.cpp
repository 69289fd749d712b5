#include "base/utf8.h"

#include <gtest/gtest.h>

namespace limner {
namespace {

TEST(Utf8, EveryCodePointComesBack) {
  std::string text;
  std::vector<char32_t> codes;
  for (char32_t code = 0; code <= 0x10FFFF; code += code < 0x1000 ? 1 : 61) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    codes.push_back(code);
    append_utf8(code, text);
  }
  const auto characters = decode_utf8(text);
  ASSERT_TRUE(characters.ok());
  ASSERT_EQ(characters->size(), codes.size());
  std::size_t end = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    ASSERT_EQ((*characters)[i].code, codes[i]);
    ASSERT_EQ((*characters)[i].begin, end);
    end = (*characters)[i].end;
  }
  EXPECT_EQ(end, text.size());
}

TEST(Utf8, WhatIsNotUtf8IsNamedByItsOffset) {
  const std::string wrong[] = {"\x80",
                               "\xff",
                               "\xc0\xaf",
                               "\xc1\x80",
                               "\xc3",
                               "\xc3(",
                               "\xe0\x80\x80",
                               "\xe2\x82",
                               "\xed\xa0\x80",
                               "\xf0\x80\x80\x80",
                               "\xf4\x90\x80\x80",
                               "\xf5\x80\x80\x80"};
  for (const std::string& bytes : wrong) {
    const auto characters = decode_utf8("ab\u00e9" + bytes);
    ASSERT_FALSE(characters.ok());
    EXPECT_EQ(characters.error().code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(characters.error().message.ends_with("at offset 4")) << characters.error().message;
  }
}

}  // namespace
}  // namespace limner
