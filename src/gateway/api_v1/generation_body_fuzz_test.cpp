// Fuzzing of the body of POST /v1/generations: it becomes a request that is within its limits, or
// a refusal with a sentence; nothing else comes out.
#include <gtest/gtest.h>

#include "base/fuzzing.h"
#include "gateway/api_v1/generation_body.h"
#include "gateway/http/message.h"

namespace limner::gateway::api_v1 {
namespace {

contract::Catalog catalog() {
  contract::Catalog made;
  contract::ModelCard card;
  card.name = "miniature";
  card.family = "sd1";
  card.limits.largest_side = 512;
  card.limits.most_steps = 100;
  card.limits.most_images = 16;
  card.limits.default_width = card.limits.default_height = 128;
  card.limits.default_steps = 12;
  card.limits.samplers = {"euler", "ddim"};
  card.limits.schedules = {"default", "karras"};
  made.models = {card};
  made.adapters = {{.name = "moon", .kind = "LoRA", .family = "sd1"}};
  made.default_model = "miniature";
  made.most_adapters = 4;
  return made;
}

platform::Templates templates() {
  return platform::parse_templates(R"({"templates": {"portrait": {
      "checkpoint": {"url": "https://x.example/m.safetensors", "filename": "m.safetensors",
                     "diffusers_dir": "miniature"}}}})",
                                   "templates.json")
      .value();
}

// Whether it was accepted.
bool check(const std::string& text) {
  static const contract::Catalog known = catalog();
  static const platform::Templates made = templates();
  static const platform::http::NetworkRules network = platform::http::NetworkRules{};
  try {
    const GenerationBody body = read_generation_body(
        text, {.catalog = known, .templates = &made, .network = network, .random_seed = 7});
    const auto& picture = body.request.picture;
    EXPECT_TRUE(*picture.width >= 1 && *picture.width <= 512) << text;
    EXPECT_TRUE(*picture.steps >= 1 && *picture.steps <= 100) << text;
    EXPECT_TRUE(picture.num_images >= 1 && picture.num_images <= 16) << text;
    EXPECT_LE(body.request.adapters.size(), 4u) << text;
    EXPECT_GT(body.work, 0.0) << text;
    // What the worker reads is what was accepted.
    const auto again = contract::job_request_from_text(contract::to_text(body.request));
    EXPECT_TRUE(again.ok() && contract::to_text(*again) == contract::to_text(body.request)) << text;
    return true;
  } catch (const http::ProblemFailure& failure) {
    const int status = static_cast<int>(failure.problem().status);
    EXPECT_TRUE(status == 400 || status == 413 || status == 422) << status << " " << text;
    EXPECT_TRUE(failure.problem().detail.ends_with('.')) << failure.problem().detail;
    EXPECT_LT(failure.problem().fields.size(), 100u);
    return false;
  }
}

TEST(GenerationBodyFuzz, TheKeptCorpusIsReadOrRefused) {
  for (const auto& [file, text] : fuzzing::corpus("generation")) {
    EXPECT_EQ(check(text), file.filename().string().starts_with("good")) << file;
  }
}

TEST(GenerationBodyFuzz, DamagedBodiesAreReadOrRefused) {
  static constexpr const char* kPieces[] = {"{",
                                            "}",
                                            "[",
                                            "]",
                                            ",",
                                            ":",
                                            "\"",
                                            "null",
                                            "true",
                                            "-1",
                                            "1e308",
                                            "0.5",
                                            "\\u0000",
                                            "9007199254740993",
                                            "\"seed\":1,",
                                            "<lora:moon:9>",
                                            "(((",
                                            "\xf0\x9f\x8e\xa8",
                                            "\"width\":8,",
                                            "AND",
                                            "\xff",
                                            "\"loras\":[{}],",
                                            "https://[::1]/",
                                            "\"output\":{\"thumbnails\":[1]},"};
  fuzzing::run_damaged("generation", kPieces, check);
}

}  // namespace
}  // namespace limner::gateway::api_v1
