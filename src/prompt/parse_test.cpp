#include <gtest/gtest.h>

#include "prompt/parsed_prompt.h"

namespace limner::prompt {
namespace {

using contract::PromptSyntax;
using Pairs = std::vector<std::pair<std::string, double>>;

ParsedPrompt parsed(std::string_view text, PromptSyntax syntax = PromptSyntax::kA1111,
                    std::int64_t steps = 10) {
  auto prompt = parse(text, {.syntax = syntax, .steps = steps});
  if (!prompt.ok()) throw Failure(prompt.error());
  return std::move(*prompt);
}

Pairs pairs(const Passage& passage) {
  Pairs list;
  for (const Fragment& fragment : passage) list.emplace_back(fragment.text, fragment.weight);
  return list;
}

// The fragments of a prompt that is one text.
Pairs fragments(std::string_view text, PromptSyntax syntax = PromptSyntax::kA1111) {
  const ParsedPrompt prompt = parsed(text, syntax);
  EXPECT_EQ(prompt.texts.size(), 1u);
  EXPECT_EQ(prompt.texts[0].parts.size(), 1u);
  EXPECT_EQ(prompt.texts[0].parts[0].passages.size(), 1u);
  return pairs(prompt.texts[0].parts[0].passages[0]);
}

Pairs compel(std::string_view text) {
  return fragments(text, PromptSyntax::kCompel);
}

void expect_near(const Pairs& got, const Pairs& want) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].first, want[i].first);
    EXPECT_NEAR(got[i].second, want[i].second, 1e-12) << got[i].first;
  }
}

std::string error_of(std::string_view text, PromptSyntax syntax = PromptSyntax::kA1111) {
  const auto prompt = parse(text, {.syntax = syntax, .steps = 10});
  return prompt.ok() ? "" : prompt.error().message;
}

// The last step and the text of each span of one side.
using Spans = std::vector<std::pair<std::int64_t, std::string>>;
Spans spans(std::string_view text, std::size_t side = 0, std::int64_t steps = 10) {
  const ParsedPrompt prompt = parsed(text, PromptSyntax::kA1111, steps);
  Spans list;
  for (const Span& span : prompt.conjuncts.at(side).schedule) {
    list.emplace_back(span.until_step, prompt.texts[span.text].source);
  }
  return list;
}

TEST(A1111Weights, AreThoseOfTheReference) {
  expect_near(fragments("normal text"), {{"normal text", 1.0}});
  expect_near(fragments("an (important) word"), {{"an ", 1.0}, {"important", 1.1}, {" word", 1.0}});
  expect_near(fragments("(unbalanced"), {{"unbalanced", 1.1}});
  expect_near(fragments("\\(literal\\]"), {{"(literal]", 1.0}});
  expect_near(fragments("(unnecessary)(parens)"), {{"unnecessaryparens", 1.1}});
  expect_near(fragments("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky)))."), {{"a ", 1.0},
                                                                                 {"house", 1.573},
                                                                                 {" ", 1.1},
                                                                                 {"on", 1.0},
                                                                                 {" a ", 1.1},
                                                                                 {"hill", 0.55},
                                                                                 {", sun, ", 1.1},
                                                                                 {"sky", 1.4641},
                                                                                 {".", 1.1}});
}

TEST(A1111Weights, ABreakIsAMarkerOfWeightMinusOne) {
  const ParsedPrompt prompt = parsed("a cat BREAK a dog");
  const Passage& passage = prompt.texts[0].parts[0].passages[0];
  expect_near(pairs(passage), {{"a cat", 1.0}, {"BREAK", -1.0}, {"a dog", 1.0}});
  EXPECT_TRUE(passage[1].is_break);
  EXPECT_FALSE(passage[0].is_break);
  expect_near(fragments("BREAKFAST"), {{"BREAKFAST", 1.0}});
  expect_near(fragments("(a BREAK b:1.5)"), {{"a", 1.5}, {"BREAK", -1.0}, {"b", 1.5}});
}

TEST(A1111Weights, WhatIsNoSyntaxIsText) {
  expect_near(fragments(""), {{"", 1.0}});
  expect_near(fragments("a) b] c:1.2)"), {{"a) b] c:1.2)", 1.0}});
  expect_near(fragments("16:9"), {{"16:9", 1.0}});
  expect_near(fragments("back\\slash"), {{"backslash", 1.0}});
  expect_near(fragments("(x:1.2 )"), {{"x", 1.2}});
  expect_near(fragments("(x:-0.5)"), {{"x", -0.5}});
  expect_near(fragments("(x:1e5)"), {{"x:1e5", 1.1}});
}

TEST(A1111Weights, WhatCannotBeReadIsRefusedWithItsPlace) {
  EXPECT_NE(error_of("a (red:1.2.3) circle").find("line 1, column 8"), std::string::npos);
  EXPECT_NE(error_of("one\nä (red:.)").find("line 2, column 8"), std::string::npos);
  EXPECT_NE(error_of("(a:99999999)").find("between"), std::string::npos);
  EXPECT_NE(error_of("(a:" + std::string(400, '9') + ")").find("between"), std::string::npos);
  EXPECT_NE(error_of(std::string(200, '(') + "a").find("multiply"), std::string::npos);
  EXPECT_NE(error_of(std::string(600, '[') + "a").find("brackets"), std::string::npos);
  EXPECT_NE(error_of("a \xff").find("UTF-8"), std::string::npos);
  // Behind a tag that was cut out the place is still where it was typed.
  EXPECT_NE(error_of("<lora:x:1>(a:1.1.1)").find("column 14"), std::string::npos);
}

// The cases of A1111's own prompt_parser.py, 10 steps.
TEST(A1111Schedules, AreThoseOfTheReference) {
  EXPECT_EQ(spans("test"), (Spans{{10, "test"}}));
  EXPECT_EQ(spans("a [b:3]"), (Spans{{3, "a "}, {10, "a b"}}));
  EXPECT_EQ(spans("a [b: 3]"), (Spans{{3, "a "}, {10, "a b"}}));
  EXPECT_EQ(spans("a [[[b]]:2]"), (Spans{{2, "a "}, {10, "a [[b]]"}}));
  EXPECT_EQ(spans("[(a:2):3]"), (Spans{{3, ""}, {10, "(a:2)"}}));
  EXPECT_EQ(spans("a [b : c : 1] d"), (Spans{{1, "a b  d"}, {10, "a  c  d"}}));
  EXPECT_EQ(spans("a[b:[c:d:2]:1]e"), (Spans{{1, "abe"}, {2, "ace"}, {10, "ade"}}));
  EXPECT_EQ(spans("a [unbalanced"), (Spans{{10, "a [unbalanced"}}));
  EXPECT_EQ(spans("a [b:.5] c"), (Spans{{5, "a  c"}, {10, "a b c"}}));
  EXPECT_EQ(spans("a [{b|d{:.5] c"), (Spans{{5, "a  c"}, {10, "a {b|d{ c"}}));
  EXPECT_EQ(spans("((a][:b:c [d:3]"), (Spans{{3, "((a][:b:c "}, {10, "((a][:b:c d"}}));
  EXPECT_EQ(spans("[a|(b:1.1)]", 0, 4),
            (Spans{{1, "a"}, {2, "(b:1.1)"}, {3, "a"}, {4, "(b:1.1)"}}));
  EXPECT_EQ(spans("[fe|]male", 0, 3), (Spans{{1, "female"}, {2, "male"}, {3, "female"}}));
  EXPECT_EQ(spans("[fe|||]male", 0, 5), (Spans{{1, "female"}, {4, "male"}, {5, "female"}}));
}

TEST(A1111Schedules, RemoveAndClampAndStayInTheirBrackets) {
  EXPECT_EQ(spans("a [b::0.5] c"), (Spans{{5, "a b c"}, {10, "a  c"}}));
  EXPECT_EQ(spans("[a:b:99]"), (Spans{{10, "a"}}));
  EXPECT_EQ(spans("[a:b:0]"), (Spans{{10, "b"}}));
  EXPECT_EQ(spans("[a:b:-3]"), (Spans{{10, "b"}}));
  EXPECT_EQ(spans("[a:b:1e300]"), (Spans{{10, "a"}}));
  EXPECT_EQ(spans("\\[a:b:5]"), (Spans{{10, "\\[a:b:5]"}}));
  EXPECT_EQ(spans("[a:b:soon]"), (Spans{{10, "[a:b:soon]"}}));
  EXPECT_EQ(spans("([a:b:5]:1.3)"), (Spans{{5, "(a:1.3)"}, {10, "(b:1.3)"}}));
}

TEST(A1111Schedules, EachDifferentTextIsThereOnce) {
  const ParsedPrompt prompt = parsed("[a|b] c", PromptSyntax::kA1111, 1000);
  EXPECT_EQ(prompt.texts.size(), 2u);
  EXPECT_EQ(prompt.conjuncts[0].schedule.size(), 1000u);
  const std::string large = "[a|b|c|d|e|f|g|h|i|j|k][l|m|n|o|p|q|r][1|2|3|4|5|6|7|8|9]";
  const auto refused = parse(large + std::string(100000, 'x'), {.steps = 1000});
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("schedules"), std::string::npos);
}

TEST(A1111And, SplitsWithWeights) {
  const ParsedPrompt prompt = parsed("a (red:1.2) circle AND a blue square :0.5 AND c:-1");
  ASSERT_EQ(prompt.conjuncts.size(), 3u);
  EXPECT_EQ(prompt.conjuncts[0].weight, 1.0);
  EXPECT_EQ(prompt.conjuncts[1].weight, 0.5);
  EXPECT_EQ(prompt.conjuncts[2].weight, -1.0);
  EXPECT_EQ(prompt.texts[0].source, "a (red:1.2) circle ");
  EXPECT_EQ(prompt.texts[1].source, " a blue square ");
  EXPECT_EQ(prompt.texts[2].source, " c");
  EXPECT_EQ(spans("a AND [b:c:5]", 1), (Spans{{5, " b"}, {10, " c"}}));
}

TEST(A1111And, IsAWordInsideOthersAndInNegativePrompts) {
  EXPECT_EQ(parsed("SAND ANDES").conjuncts.size(), 1u);
  EXPECT_EQ(parsed("in 16:9").texts[0].source, "in 16:9");
  const auto negative = parse("a AND b", {.steps = 10, .negative = true});
  ASSERT_TRUE(negative.ok());
  EXPECT_EQ(negative->conjuncts.size(), 1u);
  EXPECT_EQ(negative->texts[0].source, "a AND b");
}

TEST(LoraTags, AreCutOutWithTheirWeights) {
  const ParsedPrompt prompt =
      parsed("a <lora:style:0.8>cat<lora:plain><lyco:x_y.z-1:0.5:0.25> <lora:n:te=0.1:unet=2>");
  EXPECT_EQ(prompt.texts[0].source, "a cat ");
  EXPECT_EQ(
      prompt.loras,
      (std::vector<LoraTag>{
          {"style", 0.8, 0.8}, {"plain", 1.0, 1.0}, {"x_y.z-1", 0.25, 0.5}, {"n", 2.0, 0.1}}));
  EXPECT_EQ(parsed("1 < 2 <b>").texts[0].source, "1 < 2 <b>");
}

TEST(LoraTags, ThatAreBrokenAreRefusedWithTheirPlace) {
  EXPECT_NE(error_of("a <lora:style:0.8 cat").find("column 3"), std::string::npos);
  EXPECT_NE(error_of("<lora:style:much>").find("column 13"), std::string::npos);
  EXPECT_NE(error_of("<lora::1>").find("name"), std::string::npos);
  EXPECT_NE(error_of("<lora:a:1:1:1>").find("two weights"), std::string::npos);
  EXPECT_NE(error_of("<hypernet:a:1>").find("hypernetworks"), std::string::npos);
}

TEST(LoraTags, BelongIntoThePrompt) {
  const auto negative = parse("blurry <lora:style:0.5>", {.steps = 10, .negative = true});
  ASSERT_FALSE(negative.ok());
  EXPECT_NE(negative.error().message.find("'style'"), std::string::npos);
}

// The cases of compel's test_prompt_parser.py.
TEST(CompelWeights, AreThoseOfTheReference) {
  expect_near(compel("(flames)+"), {{"flames", 1.1}});
  expect_near(compel("flames++"), {{"flames", 1.21}});
  expect_near(compel("(flames)-"), {{"flames", 0.9}});
  expect_near(compel("flames--"), {{"flames", 0.81}});
  expect_near(compel("(fire flames)0.5"), {{"fire flames", 0.5}});
  expect_near(compel("flowers fire++ flames"), {{"flowers", 1}, {"fire", 1.21}, {"flames", 1}});
  expect_near(compel("(flames)"), {{"flames", 1.0}});
  expect_near(compel("(a (b)+ c)2"), {{"a", 2}, {"b", 2.2}, {"c", 2}});
  expect_near(compel("\"two words\"++ end"), {{"two words", 1.21}, {"end", 1}});
  expect_near(compel("(a).attend(1.5) b.attend(--)"), {{"a", 1.5}, {"b", 0.81}});
  expect_near(compel(""), {{"", 1.0}});
}

TEST(CompelWeights, WhatIsNoSyntaxIsText) {
  expect_near(compel("a well-known cat, on 3 mats"), {{"a well-known cat, on 3 mats", 1.0}});
  expect_near(compel("(unclosed and+"), {{"(unclosed", 1.0}, {"and", 1.1}});
  expect_near(compel("a = b ) c"), {{"a = b ) c", 1.0}});
  expect_near(compel("\\(literal\\)"), {{"(literal)", 1.0}});
  expect_near(compel("say \"hi"), {{"say \"hi", 1.0}});
  expect_near(compel("the end. (really)"), {{"the end. really", 1.0}});
}

TEST(CompelFunctions, BlendAndConjunction) {
  const ParsedPrompt blend =
      parsed("(\"a cat\", \"a dog++\").blend(0.25, 0.75)", PromptSyntax::kCompel);
  const Part& part = blend.texts[0].parts.at(0);
  ASSERT_EQ(part.passages.size(), 2u);
  EXPECT_EQ(part.blend_weights, (std::vector<double>{0.25, 0.75}));
  EXPECT_TRUE(part.normalized);
  expect_near(pairs(part.passages[1]), {{"a", 1}, {"dog", 1.21}});
  const ParsedPrompt plain = parsed("(\"a\", \"b\").blend()", PromptSyntax::kCompel);
  EXPECT_EQ(plain.texts[0].parts[0].blend_weights, (std::vector<double>{1, 1}));
  EXPECT_FALSE(parsed("(\"a\", \"b\").blend(1, 1, no_normalize)", PromptSyntax::kCompel)
                   .texts[0]
                   .parts[0]
                   .normalized);

  const ParsedPrompt both = parsed("(\"fire\", \"flames , hot\").and(2, 1)", PromptSyntax::kCompel);
  ASSERT_EQ(both.texts[0].parts.size(), 2u);
  EXPECT_EQ(both.texts[0].parts[0].weight, 2.0);
  EXPECT_EQ(both.texts[0].parts[1].weight, 1.0);
  EXPECT_EQ(both.conjuncts.size(), 1u);
}

TEST(CompelFunctions, ThatCannotBeReadAreRefusedWithTheirPlace) {
  const auto error = [](std::string_view text) { return error_of(text, PromptSyntax::kCompel); };
  EXPECT_NE(error("(\"a\", \"b\").blend(1, 2").find("column 22"), std::string::npos)
      << error("(\"a\", \"b\").blend(1, 2");
  EXPECT_NE(error("(\"a\", \"b\").blend(1)").find("each of 2"), std::string::npos);
  EXPECT_NE(error("(\"a\", \"b\").blend(1, x)").find("want a number, got 'x'"), std::string::npos);
  EXPECT_NE(error("(\"a\", \"b\").blend(1, -1)").find("add up to 0"), std::string::npos);
  EXPECT_NE(error("(\"a\", \"b\").and() c").find("column 18"), std::string::npos);
  EXPECT_NE(error("x (\"a\", \"b\").and()").find("whole prompts"), std::string::npos);
  EXPECT_NE(error("a cat.swap(dog)").find("swap"), std::string::npos);
  EXPECT_NE(error("(a)99999").find("between"), std::string::npos);
  EXPECT_NE(error(std::string("a").append(200, '+')).find("multiply"), std::string::npos);
  EXPECT_NE(error(std::string(600, '(')).find("brackets"), std::string::npos);
}

TEST(CompelFunctions, WithLoraIsATag) {
  const ParsedPrompt prompt =
      parsed("a cat withLora(style, 0.8) useLora(x)", PromptSyntax::kCompel);
  EXPECT_EQ(prompt.loras, (std::vector<LoraTag>{{"style", 0.8, 0.8}, {"x", 1.0, 1.0}}));
  expect_near(pairs(prompt.texts[0].parts[0].passages[0]), {{"a cat", 1.0}});
}

TEST(PlainSyntax, HasNoMarks) {
  expect_near(fragments("a (b:1.2) AND [c:d:3] <lora:x:1>", PromptSyntax::kPlain),
              {{"a (b:1.2) AND [c:d:3] <lora:x:1>", 1.0}});
}

}  // namespace
}  // namespace limner::prompt
