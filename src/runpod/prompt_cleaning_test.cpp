#include "runpod/prompt_cleaning.h"

#include <gtest/gtest.h>

namespace limner::runpod {
namespace {

TEST(PromptCleaning, TakesOutWhatNobodySees) {
  EXPECT_EQ(clean_prompt(std::string("a\0b\x1B[31mc\x7F", 10)).value(), "ab[31mc");
  EXPECT_EQ(clean_prompt("a\u00ADb\u200Bc\u200Dd\u202Ee\u2066f\uFEFFg\u0085h").value(),
            "abcdefg h");
  EXPECT_EQ(clean_prompt("\U000E0041\U000E007Fx\uFE0F").value(), "x");
}

TEST(PromptCleaning, MakesBlanksOneSpace) {
  EXPECT_EQ(clean_prompt("\n a \t\r\n b\u00A0\u3000c\u2028").value(), "a b c");
  EXPECT_EQ(clean_prompt("a \u200B b").value(), "a b");
  EXPECT_EQ(clean_prompt(" \u200B ").value(), "");
}

TEST(PromptCleaning, LeavesWordsOfEveryLanguageAsTheyAre) {
  for (const char* text : {"(a red circle:1.2), <lora:moon:0.5>", "ein Gesicht, grün", "顔、笑顔",
                           "وجه", "a\u0301", "🙂"}) {
    EXPECT_EQ(clean_prompt(text).value(), text);
  }
}

TEST(PromptCleaning, RefusesWhatIsNoText) {
  EXPECT_EQ(clean_prompt("a\xFF").error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace limner::runpod
