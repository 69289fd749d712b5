#include "prompt/infotext.h"

#include <gtest/gtest.h>

#include <random>

#include "base/utf8.h"

namespace limner::prompt {
namespace {

Infotext usual() {
  return {.prompt = "a red circle, masterpiece\nsecond line",
          .negative_prompt = "blurry",
          .parameters = {{"Steps", "20"},
                         {"Sampler", "Euler a"},
                         {"Schedule type", "Karras"},
                         {"CFG scale", "7"},
                         {"Seed", "1"},
                         {"Size", "512x512"},
                         {"Model hash", "0a1b2c3d4e"},
                         {"Model", "miniature"},
                         {"Version", "limner 0.1.0"}}};
}

TEST(Infotext, WritesTheFormOfTheWebUi) {
  EXPECT_EQ(*write_infotext(usual()),
            "a red circle, masterpiece\nsecond line\nNegative prompt: blurry\nSteps: 20, Sampler: "
            "Euler a, "
            "Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: 0a1b2c3d4e, "
            "Model: miniature, "
            "Version: limner 0.1.0");
}

TEST(Infotext, QuotesValuesThatWouldBreakTheLine) {
  Infotext infotext = usual();
  infotext.parameters.push_back({"Lora hashes", "one: 1, two: 2"});
  infotext.parameters.push_back({"Note", "a \"b\"\nc"});
  const std::string text = *write_infotext(infotext);
  EXPECT_TRUE(text.ends_with(R"(, Lora hashes: "one: 1, two: 2", Note: "a \"b\"\nc")")) << text;
  EXPECT_EQ(parse_infotext(text), infotext);
}

// Texts as the web UI (1.10) writes them.
TEST(Infotext, ReadsOtherWriters) {
  const Infotext read = parse_infotext(
      "a cat\nNegative prompt: dog,\nbird\nSteps: 30, Sampler: DPM++ 2M SDE, Schedule type: "
      "Karras, CFG scale: 6.5, "
      "Seed: 3923710223, Size: 832x1216, Model hash: 67ab2fd8ec, Model: ponyV6, Denoising "
      "strength: 0.4, "
      "Hires upscale: 1.5, Lora hashes: \"a: 1, b: 2\", ADetailer prompt: \"x, \\\"y\\\"\", "
      "Version: v1.10.1\n");
  EXPECT_EQ(read.prompt, "a cat");
  EXPECT_EQ(read.negative_prompt, "dog,\nbird");
  EXPECT_EQ(*read.find("Sampler"), "DPM++ 2M SDE");
  EXPECT_EQ(*read.find("Lora hashes"), "a: 1, b: 2");
  EXPECT_EQ(*read.find("ADetailer prompt"), "x, \"y\"");
  EXPECT_EQ(*read.find("Version"), "v1.10.1");
  EXPECT_EQ(read.find("version"), nullptr);
  EXPECT_EQ(read.parameters.size(), 13u);
}

TEST(Infotext, ATextWithoutParametersIsAllPrompt) {
  EXPECT_EQ(parse_infotext("a cat: black, two eyes"),
            (Infotext{.prompt = "a cat: black, two eyes"}));
  EXPECT_EQ(parse_infotext(""), Infotext{});
  EXPECT_EQ(parse_infotext("Negative prompt: x"), (Infotext{.negative_prompt = "x"}));
}

TEST(Infotext, HostilePromptsRoundTrip) {
  const std::string hostile[] = {"",
                                 " ",
                                 "\n",
                                 "\n\n a \n",
                                 "a\nNegative prompt: b",
                                 "Negative prompt:",
                                 "a\nSteps: 20, CFG scale: 7, Seed: 2",
                                 "Steps: 3",
                                 "aa: 1, bb: 2, cc: 3",
                                 "\"",
                                 "\\",
                                 "\\\"",
                                 "a\r\nb\r",
                                 "Exact prompt: \"x\"",
                                 "é\u2028猫😀",
                                 "a\tb",
                                 ", : \" ,",
                                 std::string("a\0b", 3)};
  for (const auto& prompt : hostile) {
    for (const auto& negative : hostile) {
      for (int form = 0; form < 3; ++form) {
        Infotext infotext{.prompt = prompt, .negative_prompt = negative};
        if (form > 0) infotext.parameters = {{"Steps", "20"}, {"Model", prompt}};
        if (form > 1) infotext.parameters = {{"Model", negative}};
        const auto text = write_infotext(infotext);
        ASSERT_TRUE(text.ok());
        EXPECT_EQ(parse_infotext(*text), infotext) << *text;
      }
    }
  }
}

TEST(Infotext, AnyTextRoundTripsAndAnyBytesAreRead) {
  std::mt19937 draw(5);
  const std::string pieces[] = {
      "Negative prompt: ", "\n", "Steps: 20", ", ", "\"", "\\", ": ", "name", " ", "é", "7"};
  const auto random_text = [&] {
    std::string text;
    for (auto n = draw() % 12; n > 0; --n) {
      if (draw() % 4) {
        text += pieces[draw() % std::size(pieces)];
      } else {
        append_utf8(draw() % 0xD800, text);
      }
    }
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    Infotext infotext{.prompt = random_text(), .negative_prompt = random_text()};
    for (auto n = draw() % 4; n > 0; --n)
      infotext.parameters.push_back({"Name " + std::to_string(n), random_text()});
    const std::string text = *write_infotext(infotext);
    ASSERT_EQ(parse_infotext(text), infotext) << text;
    std::string bytes = random_text();
    for (char& c : bytes) c = draw() % 8 ? c : static_cast<char>(draw());
    (void)parse_infotext(bytes);
  }
}

TEST(Infotext, NamesThatTheFormCannotHoldAreErrors) {
  for (const char* name : {"", "x", "a:b", "a,b", " ab", "ab ", "a\nb", "Exact prompt", "-ab"}) {
    const auto text = write_infotext({.parameters = {{name, "1"}}});
    ASSERT_FALSE(text.ok()) << name;
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace limner::prompt
