#include "gateway/api_v1/generation_body.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "delivery/webhook_sender.h"
#include "gateway/http/message.h"

namespace limner::gateway::api_v1 {
namespace {

using nlohmann::json;

contract::Catalog catalog() {
  contract::Catalog made;
  contract::ModelCard small;
  small.name = "miniature";
  small.family = "sd1";
  small.limits.multiple = 8;
  small.limits.largest_side = 512;
  small.limits.most_steps = 100;
  small.limits.most_images = 16;
  small.limits.default_width = small.limits.default_height = 128;
  small.limits.default_steps = 12;
  small.limits.micro_conditioning = false;
  small.limits.samplers = {"euler", "ddim"};
  small.limits.schedules = {"default", "karras"};
  contract::ModelCard broken = small;
  broken.name = "broken";
  broken.problem = "unet/config.json is missing";
  contract::ModelCard built = small;
  built.name = "portrait-merged-df";
  made.models = {broken, small, built};
  made.adapters = {{.name = "moon", .kind = "LoRA", .family = "sd1"},
                   {.name = "grand", .kind = "LoRA", .family = "sdxl"}};
  made.default_model = "miniature";
  made.most_adapters = 4;
  return made;
}

platform::Templates templates() {
  return platform::parse_templates(R"({
    "templates": {"portrait": {
       "checkpoint": {"url": "https://x.example/base.safetensors",
                      "filename": "base.safetensors", "diffusers_dir": "base-df"},
       "loras": [{"name": "moon", "url": "https://x.example/moon.safetensors",
                  "filename": "moon.safetensors", "scale": 0.5}],
       "defaults": {"steps": 7, "width": 256, "prompt_prefix": "a portrait",
                    "negative_prompt": "blurry"}}}})",
                                   "templates.json")
      .value();
}

struct Outcome {
  std::optional<GenerationBody> body;
  std::optional<http::Problem> problem;
  // Field -> message.
  std::map<std::string, std::string> wrong() const {
    std::map<std::string, std::string> fields;
    if (!problem) return fields;
    for (const auto& field : problem->fields) fields[field.field] = field.message;
    return fields;
  }
};

Outcome read(const std::string& text) {
  static const contract::Catalog known = catalog();
  static const platform::Templates presets = templates();
  static const auto network = delivery::webhook_network({});
  Outcome outcome;
  try {
    outcome.body = read_generation_body(
        text, {.catalog = known, .templates = &presets, .network = network, .random_seed = 84});
  } catch (const http::ProblemFailure& failure) {
    outcome.problem = failure.problem();
  }
  return outcome;
}

contract::JobRequest accepted(const json& body) {
  const Outcome outcome = read(body.dump());
  EXPECT_TRUE(outcome.body) << body << "\n" << json(outcome.wrong());
  return outcome.body ? outcome.body->request : contract::JobRequest{};
}

TEST(GenerationBody, APromptIsEnoughAndEverythingElseIsFilledIn) {
  const auto request = accepted({{"prompt", "a red circle"}});
  EXPECT_EQ(request.model, "miniature");
  EXPECT_EQ(request.picture.width, 128);
  EXPECT_EQ(request.picture.steps, 12);
  EXPECT_EQ(request.picture.seed, 42);
  EXPECT_EQ(request.output.format, "png");
  EXPECT_EQ(request.picture.sampler, "");
}

TEST(GenerationBody, TakesEveryFieldOfTheSurface) {
  const auto request = accepted(json::parse(R"({
    "prompt": "p", "negative_prompt": "n", "prompt_syntax": "compel", "model": "miniature",
    "width": 256, "height": 64, "steps": 3, "guidance_scale": 2.5, "guidance_rescale": 0.5,
    "sampler": "ddim", "schedule": "karras", "seed": 9, "num_images": 2,
    "loras": [{"name": "moon", "weight": -0.5},
              {"url": "https://x.example/a.safetensors", "sha256": ")" +
                                            std::string(64, 'A') + R"("}],
    "output": {"format": "webp", "quality": 80, "thumbnails": [64, 128], "retention": "cold"},
    "webhook": {"url": "https://x.example/hook", "events": ["started", "completed"],
                "secret": "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
    "metadata": {"order": [1, null, "x"]}, "mask": null})"));
  EXPECT_EQ(request.picture.negative_prompt, "n");
  EXPECT_EQ(request.picture.prompt_syntax, "compel");
  EXPECT_EQ(request.picture.height, 64);
  EXPECT_EQ(request.picture.guidance_rescale, 0.5);
  EXPECT_EQ(request.picture.sampler, "ddim");
  EXPECT_EQ(request.picture.num_images, 2);
  ASSERT_EQ(request.adapters.size(), 2u);
  EXPECT_EQ(request.adapters[0].weight, -0.5);
  EXPECT_EQ(request.adapters[1].sha256, std::string(64, 'a'));
  EXPECT_EQ(request.output.thumbnails, (std::vector<std::int64_t>{64, 128}));
  EXPECT_EQ(request.output.retention, "cold");
  EXPECT_EQ(request.webhook.events, (std::vector<std::string>{"started", "completed"}));
  EXPECT_EQ(request.metadata, R"({"order":[1,null,"x"]})");
}

TEST(GenerationBody, NamesEveryWrongFieldAtOnce) {
  const Outcome outcome = read(R"({
    "promt": "x", "width": 130, "height": "tall", "steps": 1.5, "seed": 18446744073709551615,
    "sampler": "eular", "guidance_scale": 1e9, "image": "x", "controls": [],
    "loras": [{"name": "mooon"}, {"weight": 99, "url": "http://x.example/"}, 3],
    "output": {"format": "gif", "quality": 0, "thumbnails": [8], "colour": 1},
    "webhook": {"url": "https://127.0.0.1/", "events": ["done"]}})");
  ASSERT_TRUE(outcome.problem);
  EXPECT_EQ(outcome.problem->status, http::beast_http::status::unprocessable_entity);
  EXPECT_EQ(outcome.problem->code, "invalid_argument");
  const auto wrong = outcome.wrong();
  std::vector<std::string> names;
  for (const auto& [name, message] : wrong) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{
                       "controls",      "guidance_scale", "height",          "image",
                       "loras[0].name", "loras[1].url",   "loras[1].weight", "loras[2]",
                       "output.colour", "output.format",  "output.quality",  "output.thumbnails",
                       "prompt",        "promt",          "sampler",         "seed",
                       "steps",         "webhook.events", "webhook.url",     "width"}));
  EXPECT_NE(wrong.at("promt").find("did you mean prompt"), std::string::npos);
  EXPECT_NE(wrong.at("sampler").find("did you mean euler"), std::string::npos);
  EXPECT_NE(wrong.at("loras[0].name").find("did you mean moon"), std::string::npos);
  EXPECT_EQ(wrong.at("image"), "is not supported by this version");
  EXPECT_NE(wrong.at("width").find("the nearest are 128 and 136"), std::string::npos);
}

TEST(GenerationBody, RefusesModelsThatAreNotThereOrCannotBeUsed) {
  EXPECT_NE(read(R"({"prompt":"a","model":"minature"})").wrong().at("model").find("miniature"),
            std::string::npos);
  EXPECT_NE(read(R"({"prompt":"a","model":"broken"})").wrong().at("model").find("unet/config"),
            std::string::npos);
  EXPECT_NE(read(R"({"prompt":"a","loras":[{"name":"grand"}]})")
                .wrong()
                .at("loras[0].name")
                .find("of the family sdxl"),
            std::string::npos);
}

TEST(GenerationBody, ATemplateFillsInWhatTheRequestLeavesOpen) {
  const auto request = accepted({{"prompt", "a man"}, {"template", "portrait"}, {"steps", 9}});
  EXPECT_EQ(request.model, "portrait-merged-df");
  EXPECT_EQ(request.template_name, "portrait");
  EXPECT_EQ(request.picture.prompt, "a portrait, a man");
  EXPECT_EQ(request.picture.negative_prompt, "blurry");
  EXPECT_EQ(request.picture.steps, 9);
  EXPECT_EQ(request.picture.width, 256);
  EXPECT_TRUE(read(R"({"prompt":"a","template":"portrait","model":"miniature"})")
                  .wrong()
                  .contains("template"));
  const auto unknown = read(R"({"prompt":"a","template":"portrat"})").wrong();
  EXPECT_EQ(unknown.at("template"), "'portrat' is not known (did you mean portrait?)");
}

TEST(GenerationBody, IsStrictAboutJson) {
  using http::beast_http::status;
  const auto code = [](const std::string& text) {
    const Outcome outcome = read(text);
    return outcome.problem ? outcome.problem->status : status::ok;
  };
  EXPECT_EQ(code(R"({"prompt":"a"})"), status::ok);
  EXPECT_EQ(code(R"({"prompt":"a","prompt":"b"})"), status::bad_request);
  EXPECT_EQ(code(R"({"prompt":"a"} x)"), status::bad_request);
  EXPECT_EQ(code(R"({"prompt":"a",})"), status::bad_request);
  EXPECT_EQ(code("[]"), status::bad_request);
  EXPECT_EQ(code(""), status::bad_request);
  EXPECT_EQ(code("{\"prompt\":\"\xFF\"}"), status::bad_request);
  EXPECT_EQ(code("{\"metadata\":" + std::string(100, '[') + std::string(100, ']') + "}"),
            status::bad_request);
  EXPECT_EQ(code("{\"prompt\":\"" + std::string(1 << 20, 'a') + "\"}"), status::payload_too_large);
  EXPECT_EQ(code("{\"prompt\":\"a\",\"metadata\":\"" + std::string(5000, 'a') + "\"}"),
            status::unprocessable_entity);
}

TEST(GenerationBody, EqualMeaningsHaveEqualFingerprints) {
  const auto fingerprint = [](const std::string& text) { return read(text).body->fingerprint; };
  EXPECT_EQ(fingerprint(R"({"prompt":"a","steps":4})"),
            fingerprint("{ \"steps\" : 4,\n\"prompt\":\"\\u0061\" }"));
  EXPECT_NE(fingerprint(R"({"prompt":"a","steps":4})"), fingerprint(R"({"prompt":"a","steps":5})"));
}

TEST(GenerationBody, CountsTheAdaptersThatThePromptNames) {
  const std::string two = R"(,"loras":[{"name":"moon"},{"name":"moon"}]})";
  EXPECT_TRUE(read(R"({"prompt":"a <lora:moon:1> b <lora:moon:1>")" + two).body);
  const Outcome three = read(R"({"prompt":"<lora:moon:1> <lora:moon:1> <lora:moon:1>")" + two);
  EXPECT_EQ(three.wrong().at("prompt"),
            "names 3 adapters, and the request 2 beside it; at most 4 together are allowed");
  EXPECT_TRUE(read(R"({"prompt":"<lora:a>","prompt_syntax":"plain")" + two).body);
  EXPECT_NE(read(R"({"prompt":"<lora:moon"})").wrong().at("prompt").find("never closed"),
            std::string::npos);
}

TEST(GenerationBody, LimitsThePixelsOfAllPicturesTogether) {
  EXPECT_TRUE(read(R"({"prompt":"a","width":512,"height":512,"num_images":16})").body);
  static const contract::Catalog known = catalog();
  static const auto network = delivery::webhook_network({});
  BodyLimits tight;
  tight.most_pixels = 512 * 512;
  EXPECT_THROW(read_generation_body(R"({"prompt":"a","width":512,"height":512,"num_images":2})",
                                    {.catalog = known, .network = network, .limits = tight}),
               http::ProblemFailure);
}

}  // namespace
}  // namespace limner::gateway::api_v1
