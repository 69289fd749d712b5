#include "runpod/job_input.h"

#include <gtest/gtest.h>

#include <fstream>

#include "worker/testing.h"

namespace limner::runpod {
namespace {

using nlohmann::json;

class RunpodInput : public ::testing::Test {
 protected:
  RunpodInput() {
    contract::ModelCard model;
    model.name = "m";
    model.family = "sd1";
    model.limits.samplers = {"euler"};
    model.limits.schedules = {"default"};
    catalog_.models = {model};
    catalog_.default_model = "m";
    contract::AdapterCard adapter;
    adapter.name = "moon";
    catalog_.adapters = {adapter};
    catalog_.most_adapters = 3;
  }
  Result<JobInput> read(const json& input, JobKind kind = JobKind::kGenerate) {
    return read_input(input, {.catalog = catalog_,
                              .network = network_,
                              .random_seed = 5,
                              .kind = kind,
                              .templates = &templates_,
                              .report_unknown = report_unknown_});
  }
  Result<JobInput> read(const char* text) { return read(json::parse(text)); }
  std::string problem(const char* text) {
    const auto input = read(text);
    return input.ok() ? "" : input.error().message;
  }
  static json load(const char* file) {
    std::ifstream stream(worker::testing::source() / file);
    return json::parse(stream);
  }

  contract::Catalog catalog_;
  platform::http::NetworkRules network_;
  bool report_unknown_ = false;
  const platform::Templates templates_ =
      platform::parse_templates(R"({"templates": {"portrait": {"checkpoint": {
          "filename": "m.safetensors", "diffusers_dir": "m"}}}})",
                                "templates.json")
          .value();
};

TEST_F(RunpodInput, TakesAdaptersAsAListOrAMap) {
  const auto list = read(
      R"({"prompt":"x","loras":["moon",{"url":"https://example.com/a.safetensors","weight":0.5}]})");
  ASSERT_TRUE(list.ok()) << list.error().message;
  ASSERT_EQ(list->request.adapters.size(), 2u);
  EXPECT_EQ(list->request.adapters[0].name, "moon");
  EXPECT_EQ(list->request.adapters[1].weight, 0.5);
  const auto map = read(R"({"prompt":"x","loras":{"moon":0.25}})");
  ASSERT_TRUE(map.ok()) << map.error().message;
  EXPECT_EQ(map->request.adapters[0].weight, 0.25);
}

TEST_F(RunpodInput, FillsInWhatIsAbsentAndTakesOtherNames) {
  const auto input = read(R"({"prompt":"x","num_inference_steps":9,"cfg_scale":2,"seed":null})");
  ASSERT_TRUE(input.ok()) << input.error().message;
  EXPECT_EQ(input->request.picture.steps, 9);
  EXPECT_EQ(input->request.picture.guidance_scale, 2.0);
  EXPECT_TRUE(input->request.picture.seed.has_value());
  EXPECT_EQ(input->request.picture.width, 1024);
}

TEST_F(RunpodInput, RefusesWithTheNameOfTheField) {
  EXPECT_NE(problem("[]").find("input must be an object"), std::string::npos);
  EXPECT_NE(problem("{}").find("prompt is wanted"), std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","steps":3,"num_inference_steps":4})").find("one setting"),
            std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","guidance":3,"cfg_scale":4})")
                .find("cfg_scale and guidance are one setting"),
            std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","loras":["sun"]})").find("loras[0].name"), std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","loras":["http://10.0.0.1/a"]})").find("loras[0].url"),
            std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","model":"n"})").find("model 'n' is not known"),
            std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","kind":"headshots"})").find("did you mean headshot"),
            std::string::npos);
}

TEST_F(RunpodInput, EveryWrongFieldIsNamedAtOnce) {
  const std::string wrong = problem(
      R"({"prompt":1,"kind":"headshot","user_id":"../ada","steps":0,"width":"wide","image":"/etc",
          "output_path":"a.gif","model":"n","prmopt":"x","loras":[3]})");
  for (const char* part :
       {"prompt must be a string", "user_id must be", "width must be an integer", "image must be",
        "output_path must end", "model 'n'", "prmopt is not known", "loras[0] must be"}) {
    EXPECT_NE(wrong.find(part), std::string::npos) << part << " in: " << wrong;
  }
}

// tests/runpod/schemas_test.py holds the same inputs against the schemas.
TEST_F(RunpodInput, TakesAndRefusesWhatTheSchemasDo) {
  const json kinds = load("tests/runpod/inputs.json");
  ASSERT_EQ(kinds.size(), 2u);
  for (const auto& [kind, inputs] : kinds.items()) {
    for (const json& input : inputs["accepted"]) {
      const auto made = read(input, *kind_named(kind));
      EXPECT_TRUE(made.ok()) << kind << " " << input << ": " << made.error().message;
    }
    for (const json& input : inputs["refused"]) {
      EXPECT_FALSE(read(input, *kind_named(kind)).ok()) << kind << " " << input;
    }
  }
}

TEST_F(RunpodInput, TheSchemasNameEveryFieldThatIsTaken) {
  for (const JobKind kind : {JobKind::kGenerate, JobKind::kHeadshot}) {
    const std::string file = "docs/runpod/" + std::string(name(kind)) + ".schema.json";
    const json schema = load(file.c_str());
    EXPECT_EQ(schema["additionalProperties"], false);
    json input = {{"prompt", "x"}, {"user_id", "ada"}};
    for (const auto& [name, property] : schema["properties"].items()) {
      if (!input.contains(name)) input[name] = nullptr;
    }
    if (kind == JobKind::kGenerate) input.erase("user_id");
    const auto read_all = read(input, kind);
    EXPECT_TRUE(read_all.ok()) << read_all.error().message;
    EXPECT_GT(input.size(), 20u);
  }
}

TEST_F(RunpodInput, ReportsUnknownFieldsWhereThatIsWanted) {
  report_unknown_ = true;
  const auto input = read(R"({"prompt":"x","widht":3,"seed":1})");
  ASSERT_TRUE(input.ok()) << input.error().message;
  EXPECT_EQ(input->unknown_fields, std::vector<std::string>{"widht"});
  EXPECT_NE(problem(R"({"prompt":"x","loras":[{"name":"moon","wieght":1}]})").find("wieght"),
            std::string::npos);
}

TEST_F(RunpodInput, AHeadshotsPromptIsCleanedAndBounded) {
  const auto read_prompt = [&](const std::string& prompt) {
    return read({{"prompt", prompt}, {"user_id", "ada"}}, JobKind::kHeadshot);
  };
  EXPECT_EQ(read_prompt(" a \u200B face\u0007 ")->request.picture.prompt, "a face");
  EXPECT_FALSE(read_prompt(" \u200B\n").ok());
  EXPECT_TRUE(read_prompt(std::string(2000, 'x') + std::string(9, ' ')).ok());
  EXPECT_FALSE(read_prompt(std::string(2001, 'x')).ok());
}

TEST_F(RunpodInput, FillsInThePathOfEachPicture) {
  const auto input = read(R"({"prompt":"x","output_path":"{seed}/{index}-{seed}.png","seed":4})");
  ASSERT_TRUE(input.ok()) << input.error().message;
  EXPECT_EQ(output_path_of(*input, 1, 5), "5/1-5.png");
  EXPECT_FALSE(input->include_images);
}

}  // namespace
}  // namespace limner::runpod
