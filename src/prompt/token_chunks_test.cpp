#include "prompt/token_chunks.h"

#include <gtest/gtest.h>

namespace limner::prompt {
namespace {

using contract::Weighting;

const ClipTokenizer& tokenizer() {
  static const ClipTokenizer loaded =
      ClipTokenizer::load(std::filesystem::path(LIMNER_SOURCE_DIR) /
                          "tests/parity/fixtures/pipelines/micro-sd1/model/tokenizer")
          .value_or_throw();
  return loaded;
}

std::int32_t id(const char* word) {
  const auto tokens = tokenizer().tokenize(word).value_or_throw();
  EXPECT_EQ(tokens.size(), 1u) << word;
  return tokens.front().id;
}

// `count` words of one token each.
std::string words(std::size_t count, const std::string& word = "red") {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += word + " ";
  return text;
}

Fragment fragment(std::string text, double weight = 1.0) {
  Fragment made;
  made.text = std::move(text);
  made.weight = weight;
  return made;
}

Fragment line_break() {
  Fragment made = fragment("BREAK", -1.0);
  made.is_break = true;
  return made;
}

std::vector<TokenChunk> chunks(const Passage& passage, const ChunkRule& rule = {},
                               const EmbeddingNames& embeddings = {}) {
  return cut_into_chunks(tokenizer(), tokenize(tokenizer(), passage, embeddings).value_or_throw(),
                         rule);
}

// Tokens between begin and the first end.
std::size_t filled(const TokenChunk& chunk) {
  std::size_t count = 0;
  while (chunk.ids[count + 1] != tokenizer().end_id()) ++count;
  return count;
}

TEST(Chunks, ShortTextsGiveTheTokenizersOwnEncoding) {
  for (const std::string& text : {std::string(), std::string("a red circle, above"), words(75)}) {
    const auto made = chunks({fragment(text)});
    ASSERT_EQ(made.size(), 1u);
    EXPECT_EQ(made[0].ids, tokenizer().encode(text)->ids);
    EXPECT_EQ(made[0].weights, std::vector<double>(77, 1.0));
  }
}

TEST(Chunks, LongTextsFillOneAfterTheOther) {
  const auto made = chunks({fragment(words(160), 1.5)});
  ASSERT_EQ(made.size(), 3u);
  EXPECT_EQ(filled(made[0]), 75u);
  EXPECT_EQ(filled(made[1]), 75u);
  EXPECT_EQ(filled(made[2]), 10u);
  for (const TokenChunk& chunk : made) {
    EXPECT_EQ(chunk.ids.size(), 77u);
    EXPECT_EQ(chunk.ids.front(), tokenizer().begin_id());
    EXPECT_EQ(chunk.weights.front(), 1.0);
    EXPECT_EQ(chunk.weights[1], 1.5);
    EXPECT_EQ(chunk.weights.back(), 1.0);
  }
}

TEST(Chunks, WhatFollowsACommaAmongTheLastTwentyMovesOn) {
  const auto near = chunks({fragment(words(60) + ", " + words(19))});
  EXPECT_EQ(filled(near[0]), 61u);
  EXPECT_EQ(filled(near[1]), 19u);
  const auto at_the_limit = chunks({fragment(words(55) + ", " + words(30))});
  EXPECT_EQ(filled(at_the_limit[0]), 56u);
  const auto far = chunks({fragment(words(54) + ", " + words(30))});
  EXPECT_EQ(filled(far[0]), 75u);
  // A comma that would be the 76th token starts the next chunk and moves nothing.
  const auto beyond = chunks({fragment(words(75) + ", " + words(3))});
  EXPECT_EQ(filled(beyond[0]), 75u);
  EXPECT_EQ(beyond[1].ids[1], id(","));
}

TEST(Chunks, ABreakFillsItsChunkUp) {
  const auto made = chunks({fragment("red"), line_break(), fragment("blue circle")});
  ASSERT_EQ(made.size(), 2u);
  EXPECT_EQ(filled(made[0]), 1u);
  EXPECT_EQ(made[1].ids[1], id("blue"));
  EXPECT_EQ(chunks({line_break()}).size(), 1u);
}

TEST(Chunks, FragmentsAreTokenizedApart) {
  const auto made = chunks({fragment("re", 1.2), fragment("d")});
  EXPECT_NE(made[0].ids, chunks({fragment("red")})[0].ids);
  EXPECT_EQ(made[0].fragments[1], 0u);
  EXPECT_EQ(made[0].fragments[filled(made[0])], 1u);
  EXPECT_EQ(made[0].fragments[0], kNoFragment);
}

TEST(Chunks, UnpaddedOnesEndWithTheirText) {
  const ChunkRule lpw{.cut = Weighting::kLpw, .padded = false};
  const auto made = chunks({fragment(words(60) + ", " + words(19))}, lpw);
  ASSERT_EQ(made.size(), 2u);
  EXPECT_EQ(filled(made[0]), 75u);
  EXPECT_EQ(made[1].ids.size(), 7u);
  EXPECT_EQ(chunks({fragment(words(75))}, lpw).size(), 1u);
  const auto filled_up =
      chunks({fragment("red")}, {.cut = Weighting::kLpw, .padded = false, .least_tokens = 80});
  ASSERT_EQ(filled_up.size(), 2u);
  EXPECT_EQ(filled_up[0].ids[2], tokenizer().end_id());
  EXPECT_EQ(filled_up[1].ids.size(), 7u);
}

TEST(Chunks, CompelCutsBehindSentencesThenPhrasesThenWords) {
  const ChunkRule compel{.cut = Weighting::kCompel};
  const auto sentence = chunks({fragment(words(10) + ". " + words(30) + ", " + words(50))}, compel);
  ASSERT_EQ(sentence.size(), 3u);
  EXPECT_EQ(filled(sentence[0]), 11u);
  EXPECT_EQ(filled(sentence[1]), 31u);
  const auto phrase = chunks({fragment(words(40) + "; " + words(50))}, compel);
  EXPECT_EQ(filled(phrase[0]), 41u);
  const auto word = chunks({fragment(words(100))}, compel);
  EXPECT_EQ(filled(word[0]), 75u);
  const auto letters = chunks({fragment(words(74) + "zzzz " + words(5))}, compel);
  EXPECT_EQ(filled(letters[0]), 74u);  // not inside a word of several tokens
}

TEST(Chunks, TruncationSaysWhatWasCut) {
  const Passage passage = {fragment(words(74)), fragment("blue circle", 1.5)};
  const auto tokens = tokenize(tokenizer(), passage, {}).value_or_throw();
  const Truncated truncated = truncate(tokenizer(), passage, tokens);
  EXPECT_EQ(filled(truncated.chunk), 75u);
  EXPECT_EQ(truncated.cut, "circle");
  EXPECT_EQ(truncate(tokenizer(), passage, {tokens.begin(), tokens.begin() + 3}).cut, "");
}

EmbeddingNames names() {
  const std::vector<std::string> known = {"bad-hands", "bad-hands-5", "Style", "<cat-toy>"};
  return {known, [](std::size_t embedding) { return embedding + 1; }};
}

TEST(Embeddings, AreFoundByTheirLongestNameInAnyCase) {
  const auto found = [](std::string_view text) {
    const auto place = names().find(text, 0);
    return place.end == 0 ? std::string("none")
                          : std::to_string(place.embedding) + ":" +
                                std::string(text.substr(place.begin, place.end - place.begin));
  };
  EXPECT_EQ(found("a bad-hands-5, b"), "1:bad-hands-5");
  EXPECT_EQ(found("a BAD-Hands b"), "0:BAD-Hands");
  EXPECT_EQ(found("style"), "2:style");
  EXPECT_EQ(found("x<Cat-Toy>y"), "3:<Cat-Toy>");
  EXPECT_EQ(found("stylebook lifestyle"), "none");
  EXPECT_EQ(found("styl\u00e9 style\u00e9"), "none");
  EXPECT_EQ(found(""), "none");
}

TEST(Embeddings, TakeAPlaceForEachVector) {
  const auto made = chunks({fragment("a style b", 1.3)}, {}, names());
  ASSERT_EQ(made.size(), 1u);
  EXPECT_EQ(made[0].insertions, (std::vector<Insertion>{{2, 2}}));
  EXPECT_EQ(filled(made[0]), 5u);
  EXPECT_EQ(made[0].weights[4], 1.3);
}

TEST(Embeddings, AreNotCutInTwo) {
  const auto made = chunks({fragment(words(74) + "style red")}, {}, names());
  ASSERT_EQ(made.size(), 2u);
  EXPECT_EQ(filled(made[0]), 74u);
  EXPECT_EQ(made[1].insertions, (std::vector<Insertion>{{1, 2}}));
  const auto compel =
      chunks({fragment(words(74) + "style " + words(3))}, {.cut = Weighting::kCompel}, names());
  EXPECT_EQ(filled(compel[0]), 74u);
}

}  // namespace
}  // namespace limner::prompt
