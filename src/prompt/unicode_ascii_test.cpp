// Linked with unicode_ascii.cpp in place of the library's choice.
#include <gtest/gtest.h>

#include "prompt/clip_tokenizer.h"
#include "prompt/unicode.h"

namespace limner::prompt {
namespace {

const std::string kFixture = LIMNER_SOURCE_DIR "/tests/parity/fixtures/tokenizer/parts";

TEST(UnicodeAscii, RefusesOtherTextAndSaysWhatToInstall) {
  const auto tokenizer = ClipTokenizer::load(kFixture);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  const auto tokens = tokenizer->tokenize("a caf\u00e9");
  ASSERT_FALSE(tokens.ok());
  EXPECT_EQ(tokens.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(tokens.error().message.find("U+00E9 at byte 5"), std::string::npos)
      << tokens.error().message;
  EXPECT_NE(tokens.error().message.find("libicu-dev"), std::string::npos);
}

TEST(UnicodeAscii, AsciiTextIsTokenized) {
  const auto tokenizer = ClipTokenizer::load(kFixture);
  const auto tokens = tokenizer->tokenize("A Red\tcircle");
  ASSERT_TRUE(tokens.ok());
  ASSERT_EQ(tokens->size(), 3u);
  EXPECT_EQ((*tokens)[0].id, (*tokenizer->tokenize("a"))[0].id);
}

TEST(UnicodeAscii, ClassesOfAllAscii) {
  for (char32_t code = 0; code < 128; ++code) {
    const bool space = code == ' ' || (code >= 9 && code <= 13);
    const auto want =
        space ? CharacterClass::kSpace
        : std::string_view("0123456789").find(static_cast<char>(code)) != std::string_view::npos
            ? CharacterClass::kNumber
        : (code | 32) >= 'a' && (code | 32) <= 'z' ? CharacterClass::kLetter
                                                   : CharacterClass::kOther;
    EXPECT_EQ(character_class(code), want) << static_cast<unsigned>(code);
  }
}

}  // namespace
}  // namespace limner::prompt
