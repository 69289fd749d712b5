// Fuzzing of the prompt parsers: texts put together from marks, numbers and words, damaged at
// random, and read in every syntax. Whatever is accepted must hold what parsed_prompt.h promises.
// Deterministic; LIMNER_FUZZ_SECONDS makes it run longer and LIMNER_FUZZ_SEED start elsewhere.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <random>
#include <set>

#include "base/fuzzing.h"
#include "base/utf8.h"
#include "prompt/negative_section.h"
#include "prompt/parsed_prompt.h"

namespace limner::prompt {
namespace {

using contract::PromptSyntax;

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

  std::string prompt() {
    static const char* const kPieces[] = {"(",
                                          ")",
                                          "[",
                                          "]",
                                          ":",
                                          "|",
                                          "\\",
                                          "\"",
                                          "+",
                                          "++",
                                          "-",
                                          "--",
                                          ",",
                                          ".",
                                          "=",
                                          " ",
                                          "\n",
                                          "1.3",
                                          "0.5",
                                          "-1",
                                          "1e9",
                                          "99999",
                                          ".",
                                          "1.2.3",
                                          "a",
                                          "cat",
                                          "BREAK",
                                          "AND",
                                          " AND ",
                                          " BREAK ",
                                          "<lora:",
                                          ">",
                                          ".blend(",
                                          ".and(",
                                          ".attend(",
                                          ".swap(",
                                          "(\"a\", \"b\")",
                                          "no_normalize",
                                          "withLora(",
                                          "<lora:x:0.5>",
                                          "[a:b:0.5]",
                                          "[a|b|c]",
                                          "(x:1.2)",
                                          "(y)1.5",
                                          "\u00e9",
                                          "\u65e5\u672c",
                                          "\U0001f642",
                                          "--no ",
                                          "### negative: ",
                                          "#",
                                          "\t"};
    std::string text;
    for (std::uint64_t n = below(40); n > 0; --n) text += kPieces[below(std::size(kPieces))];
    for (std::uint64_t n = below(4); n > 0; --n) damage(text);
    return text;
  }

 private:
  void damage(std::string& text) {
    if (text.empty()) return;
    switch (below(5)) {
      case 0:
        text.erase(below(text.size()), 1 + below(4));
        return;
      case 1:
        text.insert(below(text.size() + 1), text.substr(below(text.size()), 1 + below(20)));
        return;
      case 2:
        text[below(text.size())] = static_cast<char>(below(256));
        return;
      case 3:
        text.insert(below(text.size() + 1), std::string(1 + below(700), "([\"+)]-|"[below(8)]));
        return;
      default:
        text.resize(below(text.size() + 1));
    }
  }

  std::mt19937_64 random_;
};

void check_passage(const Passage& passage) {
  ASSERT_FALSE(passage.empty());
  for (const Fragment& fragment : passage) {
    ASSERT_TRUE(std::isfinite(fragment.weight));
    ASSERT_LE(std::abs(fragment.weight), kLargestWeight);
    ASSERT_TRUE(decode_utf8(fragment.text).ok());
  }
}

void check(const ParsedPrompt& prompt, std::int64_t steps) {
  std::set<std::size_t> used;
  ASSERT_FALSE(prompt.conjuncts.empty());
  for (const Conjunct& conjunct : prompt.conjuncts) {
    ASSERT_TRUE(std::isfinite(conjunct.weight));
    std::int64_t before = 0;
    ASSERT_FALSE(conjunct.schedule.empty());
    for (const Span& span : conjunct.schedule) {
      ASSERT_GT(span.until_step, before);
      ASSERT_LT(span.text, prompt.texts.size());
      used.insert(span.text);
      before = span.until_step;
    }
    ASSERT_EQ(before, steps);
  }
  ASSERT_EQ(used.size(), prompt.texts.size());
  for (const Text& text : prompt.texts) {
    ASSERT_FALSE(text.parts.empty());
    for (const Part& part : text.parts) {
      ASSERT_EQ(part.passages.size(), part.blend_weights.size());
      for (const Passage& passage : part.passages) check_passage(passage);
    }
  }
  for (const LoraTag& tag : prompt.loras) {
    ASSERT_FALSE(tag.name.empty());
    ASSERT_TRUE(std::isfinite(tag.unet_weight) && std::isfinite(tag.text_encoder_weight));
  }
}

// Reads one text in every syntax; says how many took it.
int read_everywhere(const std::string& text, std::int64_t steps, bool negative) {
  int accepted = 0;
  for (const PromptSyntax syntax :
       {PromptSyntax::kA1111, PromptSyntax::kCompel, PromptSyntax::kPlain}) {
    const auto prompt = parse(text, {.syntax = syntax, .steps = steps, .negative = negative});
    if (prompt.ok()) {
      check(*prompt, steps);
      ++accepted;
    } else {
      EXPECT_EQ(prompt.error().code, ErrorCode::kInvalidArgument);
      EXPECT_FALSE(prompt.error().message.empty());
      EXPECT_LT(prompt.error().message.size(), 500u);
    }
  }
  const PromptPair pair = extract_negative(text, "");
  EXPECT_LE(pair.prompt.size() + pair.negative.size(), text.size() + 2 * text.size());
  return accepted;
}

TEST(PromptFuzz, TheKeptCorpusIsReadOrRefused) {
  for (const auto& [file, text] : fuzzing::corpus("prompt")) {
    SCOPED_TRACE(file);
    read_everywhere(text, 20, false);
  }
}

TEST(PromptFuzz, NoTextCrashesAParser) {
  const auto corpus = fuzzing::corpus("prompt");
  static constexpr const char* kPieces[] = {"(",      ")",     "[",      "]",    ":",     "|",
                                            "\\",     "\"",    "<lora:", "AND",  "BREAK", "+",
                                            ".and()", "1e999", "\xff",   "--no "};
  std::uint64_t accepted = 0;
  const std::uint64_t runs = fuzzing::run(1, [&](std::uint64_t seed) {
    Generator generator(seed);
    std::mt19937_64 random(seed);
    std::string text = generator.prompt();
    if (random() % 4 == 0) {
      text = corpus[random() % corpus.size()].second;
      for (std::uint64_t n = random() % 5; n > 0; --n) fuzzing::damage(text, random, kPieces);
    }
    accepted += static_cast<std::uint64_t>(read_everywhere(
        text, 1 + static_cast<std::int64_t>(generator.below(30)), generator.below(2) == 0));
  });
  // Both sides must be reached, or the generator tests nothing.
  EXPECT_GT(accepted, runs * 3 / 20);
  EXPECT_LT(accepted, runs * 3 * 19 / 20);
}

// The slowest texts for each parser stay quick: nothing is worse than a product of text and depth.
TEST(PromptFuzz, LongHostileTextsStayQuick) {
  const auto repeated = [](const std::string& piece) {
    std::string text;
    while (text.size() < 100000) text += piece;
    return text;
  };
  const auto start = std::chrono::steady_clock::now();
  for (const char* piece : {"(", "[", "(a ", "( a)", "\"a ", "[a:", "[a|b]", "(a:1.0)", "AND ", "<",
                            "BREAK ", "a++ ", "\\", "(\"a\"", ").blend(", "#", "--no ", "((a)=)"}) {
    for (const PromptSyntax syntax : {PromptSyntax::kA1111, PromptSyntax::kCompel}) {
      static_cast<void>(parse(repeated(piece), {.syntax = syntax, .steps = 20}).ok());
    }
    static_cast<void>(extract_negative(repeated(piece), ""));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

}  // namespace
}  // namespace limner::prompt
