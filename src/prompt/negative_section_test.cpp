#include "prompt/negative_section.h"

#include <gtest/gtest.h>

namespace limner::prompt {
namespace {

void expect_pair(std::string_view prompt, std::string_view negative, std::string_view want_prompt,
                 std::string_view want_negative) {
  const PromptPair pair = extract_negative(prompt, negative);
  EXPECT_EQ(pair.prompt, want_prompt) << prompt;
  EXPECT_EQ(pair.negative, want_negative) << prompt;
}

TEST(ExtractNegative, TakesHeadingsAndOptionsOut) {
  expect_pair("a cat ### negative: blurry, ugly", "", "a cat", "blurry, ugly");
  expect_pair("a cat\n## Negative prompt:  blurry\n", "", "a cat", "blurry");
  expect_pair("a cat --no dogs, text", "", "a cat", "dogs, text");
  expect_pair("a cat --no dogs --no text ### NEGATIVE: blurry", "", "a cat", "dogs, text, blurry");
  expect_pair("--no dogs", "", "", "dogs");
}

TEST(ExtractNegative, JoinsWithWhatWasGivenApart) {
  expect_pair("a cat --no dogs", "blurry", "a cat", "blurry, dogs");
  expect_pair("a cat --no ", "blurry", "a cat", "blurry");
}

TEST(ExtractNegative, LeavesOtherTextAlone) {
  expect_pair(" a cat ", "b", " a cat ", "b");
  expect_pair("a --north wind", "", "a --north wind", "");
  expect_pair("a b--no c", "", "a b--no c", "");
  expect_pair("# negative: x", "", "# negative: x", "");
  expect_pair("### negatives x", "", "### negatives x", "");
}

}  // namespace
}  // namespace limner::prompt
