#include "engine/weights/config.h"

#include <gtest/gtest.h>

#include "engine/weights/json.h"
#include "engine/weights/message_text.h"
#include "engine/weights/testing.h"

namespace limner::engine::weights {
namespace {

using testing::TemporaryFolder;

Config config(const std::string& text) {
  return Config(parse_json(text, "unet/config.json"), "unet/config.json");
}

// The message of the Failure that `action` throws, with its code; empty when it throws none.
template <typename Action>
std::string failure(Action action, ErrorCode want = ErrorCode::kInvalidModel) {
  try {
    action();
  } catch (const Failure& thrown) {
    EXPECT_EQ(name(thrown.error().code), name(want));
    return thrown.what();
  }
  return "";
}

TEST(Config, ReadsEachKindOfValue) {
  const Config c =
      config(R"({"i": 4, "f": 0.18215, "whole": 2.0, "b": true, "t": "silu", "li": [1, 2.0],
                             "lf": [1, 0.5], "lt": ["a", "b"], "n": null})");
  EXPECT_EQ(c.integer("i", 0), 4);
  EXPECT_EQ(c.integer("whole", 0), 2);
  EXPECT_EQ(c.number("f", 0), 0.18215);
  EXPECT_EQ(c.number("i", 0), 4.0);
  EXPECT_TRUE(c.boolean("b", false));
  EXPECT_EQ(c.text("t", ""), "silu");
  EXPECT_EQ(c.integers("li", {}), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(c.numbers("lf", {}), (std::vector<double>{1, 0.5}));
  EXPECT_EQ(c.texts("lt", {}), (std::vector<std::string>{"a", "b"}));
  EXPECT_FALSE(c.has("n"));
  EXPECT_TRUE(c.has("i"));
  EXPECT_TRUE(c.raw("nothing").is_null());
  c.finish();
}

TEST(Config, AbsentAndNullGiveTheFallback) {
  const Config c = config(R"({"n": null})");
  for (const char* key : {"n", "absent"}) {
    EXPECT_EQ(c.integer(key, 7), 7);
    EXPECT_EQ(c.number(key, 0.5), 0.5);
    EXPECT_TRUE(c.boolean(key, true));
    EXPECT_EQ(c.text(key, "x"), "x");
    EXPECT_EQ(c.integers(key, {3}), (std::vector<std::int64_t>{3}));
    EXPECT_EQ(c.integer_per_block(key, 5, 2), (std::vector<std::int64_t>{5, 5}));
  }
}

TEST(Config, AScalarServesEveryBlockAndAListMustFit) {
  const Config c = config(R"({"scalar": 8, "list": [5, 10, 20], "short": [5]})");
  EXPECT_EQ(c.integer_per_block("scalar", 0, 3), (std::vector<std::int64_t>{8, 8, 8}));
  EXPECT_EQ(c.integer_per_block("list", 0, 3), (std::vector<std::int64_t>{5, 10, 20}));
  EXPECT_EQ(failure([&] { c.integer_per_block("short", 0, 3); }),
            "unet/config.json: 'short' wants one number or a list of 3, got [5]");
}

TEST(Config, WrongTypesNameFileKeyAndValue) {
  const Config c =
      config(R"({"k": "four", "half": 0.5, "big": 1e300, "huge": 18446744073709551615, "b": 1,
                             "list": [1, "x"], "neg": -3})");
  EXPECT_EQ(failure([&] { c.integer("k", 0); }),
            "unet/config.json: 'k' wants a whole number, got \"four\"");
  EXPECT_NE(failure([&] { c.integer("half", 0); }), "");
  EXPECT_NE(failure([&] { c.integer("big", 0); }), "");
  EXPECT_NE(failure([&] { c.integer("huge", 0); }), "");
  EXPECT_NE(failure([&] { c.number("k", 0); }), "");
  EXPECT_NE(failure([&] { c.boolean("b", false); }), "");
  EXPECT_NE(failure([&] { c.text("b", ""); }), "");
  EXPECT_NE(failure([&] { c.integers("list", {}); }), "");
  EXPECT_NE(failure([&] { c.integers("b", {}); }), "");
  EXPECT_NE(failure([&] { c.numbers("list", {}); }), "");
  EXPECT_NE(failure([&] { c.texts("list", {}); }), "");
  EXPECT_EQ(failure([&] { c.integer_in("neg", 4, 1, 64); }),
            "unet/config.json: 'neg' wants a whole number from 1 to 64, got -3");
  EXPECT_EQ(c.integer_in("absent", 4, 1, 64), 4);
}

TEST(Config, OnlyAllowsOneValue) {
  const Config c = config(R"({"dual": true, "drop": 0, "act": "silu", "none": null})");
  EXPECT_EQ(failure([&] { c.only("dual", false); }),
            "unet/config.json: 'dual' = true is not supported (want false)");
  c.only("drop", 0.0);
  c.only("act", "silu");
  c.only("none", "anything");
  c.only("absent", 3);
}

TEST(Config, AKeyNobodyAskedForIsAnError) {
  const Config c = config(R"({"_class_name": "X", "known": 1, "training": 2, "in_chanels": 4})");
  c.integer("known", 0);
  c.integer("in_channels", 4);
  c.ignore({"training"});
  const std::string message = failure([&] { c.finish(); });
  EXPECT_NE(message.find("unet/config.json: 'in_chanels' = 4"), std::string::npos) << message;
  EXPECT_NE(message.find("did you mean in_channels"), std::string::npos) << message;
  c.ignore({"in_chanels"});
  c.finish();
}

TEST(Config, BrokenFilesGiveOneSentence) {
  const TemporaryFolder folder;
  const auto read = [&](std::string_view text, ErrorCode want = ErrorCode::kInvalidModel) {
    const auto file = folder.write("unet/config.json", text);
    const std::string message = failure([&] { Config::read(file); }, want);
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_EQ(message.find("unet/config.json"), 0u) << message;
    return message;
  };
  EXPECT_NE(read(""), "");
  EXPECT_NE(read("[1, 2]").find("want a JSON object, got array"), std::string::npos);
  EXPECT_NE(read("{\"a\": NaN}").find("not valid JSON"), std::string::npos);
  EXPECT_NE(read("{\"a\": Infinity}"), "");
  EXPECT_NE(read("{\"a\": 1e999}"), "");
  EXPECT_NE(read("{\"a\": 1} x"), "");
  EXPECT_NE(read(std::string_view("{\"a\": 1}\0x", 10)), "");
  EXPECT_NE(read("{\"a\": 1, \"a\": 2}").find("'a' occurs twice"), std::string::npos);
  EXPECT_NE(read("{\"a\": {\"b\": 1, \"b\": 2}}").find("'b' occurs twice"), std::string::npos);
  EXPECT_NE(read("{\"a\": \"\xff\xfe\"}"), "");
  EXPECT_NE(read("{\"\x1b[31m\": 1}"), "");
  EXPECT_NE(read(std::string("{\"a\": ") + std::string(100'000, '[')).find("nested deeper"),
            std::string::npos);
  EXPECT_NE(read(std::string(17 << 20, ' ')).find("larger than 16 MiB"), std::string::npos);
  std::string many = "{\"a\": [0";
  for (int i = 0; i < 1'000'001; ++i) many += ",0";
  EXPECT_NE(read(many + "]}").find("more than 1000000 JSON values"), std::string::npos);
  EXPECT_NE(failure([&] { Config::read(folder.path() / "vae/config.json"); }, ErrorCode::kNotFound),
            "");
  EXPECT_NE(failure([&] { Config::read(folder.path() / "unet"); }), "");
}

TEST(Config, ReadsWhatDiffusersWrites) {
  const TemporaryFolder folder;
  const auto file = folder.write("unet/config.json",
                                 "{\n  \"_class_name\": \"UNet2DConditionModel\",\n"
                                 "  \"act_fn\": \"silu\",\n  \"norm_eps\": 1e-05\n}\n");
  const Config c = Config::read(file);
  EXPECT_EQ(c.where(), "unet/config.json");
  EXPECT_EQ(c.number("norm_eps", 0), 1e-5);
  EXPECT_EQ(c.text("act_fn", ""), "silu");
  c.finish();
}

TEST(Quote, KeepsMessagesOnOneLineAndShort) {
  EXPECT_EQ(quote("conv_in.weight"), "'conv_in.weight'");
  EXPECT_EQ(quote("a\nb\x1b[0m"), "'a?b?[0m'");
  EXPECT_EQ(quote("\xff\xc3"), std::string("'?") + "?'");
  EXPECT_EQ(quote("\xc3\xa4\xf0\x9f\x8e\xa8"), "'\xc3\xa4\xf0\x9f\x8e\xa8'");
  EXPECT_LE(quote(std::string(100'000, 'x')).size(), 170u);
  std::string umlauts;
  for (int i = 0; i < 500; ++i) umlauts += "\xc3\xa4";
  EXPECT_EQ(quote("x" + umlauts).find('?'), std::string::npos);
}

}  // namespace
}  // namespace limner::engine::weights
