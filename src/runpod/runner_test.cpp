#include "runpod/runner.h"

#include <gtest/gtest.h>

#include <fstream>

#include "image/encode.h"
#include "runpod/job_input.h"
#include "runpod/testing.h"
#include "worker/testing.h"

namespace limner::runpod {
namespace {

using nlohmann::json;
using testing::milliseconds;
using testing::ScriptedPlatform;

class RunpodWorker : public ::testing::Test {
 protected:
  RunpodWorker() {
    const auto models = folder_.path() / "models";
    std::filesystem::create_directories(models);
    std::filesystem::create_directory_symlink(worker::testing::micro_model("micro-sd1"),
                                              models / "micro-sd1");
    catalog_options_.model_folders = {models};
    catalog_options_.look_every = milliseconds(0);
    resolver_options_.folders = {folder_.path() / "loras"};
    resolver_options_.downloads.folder = folder_.path() / "downloads";
    options_.progress_every = milliseconds(0);
    options_.look_every = milliseconds(10);
    options_.outbox.first_delay = milliseconds(5);
    options_.outbox.max_delay = milliseconds(20);
  }

  void make_drawer(DrawerOptions options = {}) {
    catalog_ = std::make_unique<worker::CatalogBuilder>(
        catalog_options_, [this] { return models_.loaded(); }, log_);
    adapters_ = std::make_unique<worker::AdapterResolver>(resolver_options_);
    drawer_ = std::make_unique<JobDrawer>(
        DrawerServices{*catalog_, models_, *adapters_, network_, log_}, std::move(options));
  }
  void start() {
    make_drawer();
    runner_ = std::make_unique<Runner>(options_, plane_, *drawer_, log_);
    runner_->start();
  }
  static json input() {
    return {{"prompt", "a red circle"}, {"width", 64}, {"height", 48}, {"steps", 4},
            {"sampler", "euler"},       {"seed", 7}};
  }
  static ScriptedPlatform::Answer job(const std::string& id, const json& input) {
    return {200, json{{"id", id}, {"input", input}}.dump()};
  }
  json result(const std::string& id) {
    EXPECT_TRUE(platform_.soon([&] { return !platform_.results(id).empty(); })) << id;
    const auto results = platform_.results(id);
    return results.empty() ? json() : results.front();
  }

  worker::testing::TemporaryFolder folder_;
  NoLog log_;
  ScriptedPlatform platform_;
  ControlPlane plane_{read_settings(testing::environment()).value(), testing::short_waits(),
                      platform_};
  platform::http::NetworkRules network_;
  worker::CatalogOptions catalog_options_;
  worker::AdapterResolverOptions resolver_options_;
  worker::ModelCache models_ = worker::ModelCache::open({}, "cpu").value();
  std::unique_ptr<worker::CatalogBuilder> catalog_;
  std::unique_ptr<worker::AdapterResolver> adapters_;
  std::unique_ptr<JobDrawer> drawer_;
  RunnerOptions options_;
  std::unique_ptr<Runner> runner_;
};

TEST_F(RunpodWorker, DrawsAJobAndReturnsPngsWithSeedsAndTimings) {
  json asked = input();
  asked["num_images"] = 2;
  asked["progress"] = true;
  platform_.answer("/job-take/", {job("j1", asked), {204}});
  start();
  const json done = result("j1");
  ASSERT_TRUE(done.contains("output")) << done.dump();
  const json& output = done["output"];
  EXPECT_EQ(output["seeds"], json::array({7, 8}));
  EXPECT_EQ(output["model"]["name"], "micro-sd1");
  EXPECT_GT(output["timings"]["denoise_ms"].get<double>(), 0.0);
  const auto png = delivery::from_base64(output["images"][1].get<std::string>());
  ASSERT_TRUE(png);
  EXPECT_NE(image::read_png_text(*png).value().at("parameters").find("Seed: 8"), std::string::npos);
  EXPECT_TRUE(runner_->drain(milliseconds(5'000)));
  EXPECT_EQ(platform_.results("j1").size(), 1u);
  // The result is the last that was said of the job.
  EXPECT_FALSE(json::parse(platform_.calls("/job-done/").back().body).contains("status"));
}

TEST_F(RunpodWorker, AWrongInputIsAnErrorThatNamesEveryField) {
  platform_.answer("/job-take/", {job("j1", {{"prompt", 3}, {"widht", 64}, {"steps", -1}}), {204}});
  start();
  const json error = json::parse(result("j1")["error"].get<std::string>());
  const std::string message = error["error_message"];
  EXPECT_EQ(error["error_type"], "invalid_argument");
  for (const char* part :
       {"prompt must be a string", "widht is not known (did you mean width", "steps must be"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST_F(RunpodWorker, AResultThatIsRefusedIsKeptUntilItIsTaken) {
  platform_.answer("/job-done/", {{500}, {0}, {429}, {503}, {400}, {400}, {200}});
  platform_.answer("/job-take/", {job("j1", json::array()), {204}});
  options_.progress_every = milliseconds(3'600'000);
  start();
  EXPECT_TRUE(result("j1").contains("error"));
  EXPECT_GE(platform_.calls("/job-done/").size(), 7u);
}

TEST_F(RunpodWorker, AResultThatIsNeverTakenBecomesAnErrorThatSaysSo) {
  platform_.answer("/job-done/", {{413}, {413}, {413}, {200}});
  platform_.answer("/job-take/", {job("j1", json::array()), {204}});
  start();
  const json done = result("j1");
  EXPECT_EQ(json::parse(done["error"].get<std::string>())["error_type"], "result_refused");
}

TEST_F(RunpodWorker, AStoppedJobHasNoResultAndTheNextOneIsDrawn) {
  json slow = input();
  slow["steps"] = 1000;
  slow["progress"] = true;
  platform_.answer("/job-take/", {job("slow", slow), {204}, job("next", input()), {204}});
  start();
  ASSERT_TRUE(platform_.soon([&] { return !platform_.calls("/job-done/").empty(); }));
  platform_.answer("/job-stop/", {{200, R"({"jobsToStop":["slow"]})"}, {204}});
  EXPECT_TRUE(result("next").contains("output"));
  EXPECT_TRUE(runner_->drain(milliseconds(5'000)));
  EXPECT_TRUE(platform_.results("slow").empty());
}

TEST_F(RunpodWorker, WhatCannotBeFinishedEndsAsAnErrorThatMayBeTriedAgain) {
  json slow = input();
  slow["steps"] = 1000;
  slow["num_images"] = 8;
  slow["progress"] = true;
  platform_.answer("/job-take/", {job("slow", slow), {204}});
  start();
  ASSERT_TRUE(platform_.soon([&] { return !platform_.calls("/job-done/").empty(); }));
  runner_->drain(milliseconds(50));
  const json error = json::parse(result("slow")["error"].get<std::string>());
  EXPECT_EQ(error["retryable"], true);
  EXPECT_EQ(error["worker_id"], "pod-1");
}

TEST_F(RunpodWorker, AWorkerThatIsToBeRefreshedSaysSoAndTakesNoMore) {
  options_.refresh_worker = true;
  platform_.answer("/job-take/", {job("j1", input()), job("j2", input())});
  start();
  EXPECT_EQ(result("j1")["stopPod"], true);
  EXPECT_TRUE(platform_.soon([&] { return runner_->finished(); }));
  EXPECT_TRUE(runner_->drain(milliseconds(5'000)));
  EXPECT_TRUE(platform_.results("j2").empty());
}

TEST_F(RunpodWorker, AStreamTellsEveryPictureAndThenAll) {
  json asked = input();
  asked["stream"] = true;
  asked["num_images"] = 2;
  platform_.answer("/job-take/", {job("j1", asked), {204}});
  start();
  EXPECT_EQ(result("j1")["output"]["images"].size(), 2u);
  const auto partials = platform_.calls("/job-stream/");
  ASSERT_EQ(partials.size(), 2u);
  EXPECT_EQ(json::parse(partials[1].body)["output"]["seed"], 8);
  EXPECT_TRUE(platform_.calls("/job-done/").back().target.ends_with("&isStream=true"));
}

TEST_F(RunpodWorker, AnAnswerThatIsTooLargeIsUploadedOrRefused) {
  std::vector<std::string> names;
  make_drawer({.most_bytes = 100, .upload = {}});
  const auto refused = drawer_->draw("j", input(), {}, {});
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  make_drawer(
      {.most_bytes = 100, .upload = [](const std::string& id, std::int64_t index, auto png) {
         EXPECT_GT(png.size(), 100u);
         return Result<std::string>(id + "-" + std::to_string(index));
       }});
  const auto drawn = drawer_->draw("j", input(), {}, {});
  ASSERT_TRUE(drawn.ok()) << drawn.error().message;
  EXPECT_EQ(drawn->output["images"], json::array({"j-0"}));
  EXPECT_EQ(drawn->output["images_are"], "urls");
}

TEST_F(RunpodWorker, WarmingUpLoadsTheDefaultModel) {
  make_drawer();
  EXPECT_EQ(drawer_->warm_up({}).value(), "micro-sd1");
  EXPECT_EQ(models_.loaded(), std::vector<std::string>{"micro-sd1"});
}

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
  Result<JobInput> read(const char* text) {
    return read_input(json::parse(text), {catalog_, network_, 5});
  }
  std::string problem(const char* text) {
    const auto input = read(text);
    return input.ok() ? "" : input.error().message;
  }
  contract::Catalog catalog_;
  platform::http::NetworkRules network_;
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
  const auto input = read(R"({"prompt":"x","num_inference_steps":9,"guidance":2,"seed":null})");
  ASSERT_TRUE(input.ok()) << input.error().message;
  EXPECT_EQ(input->request.picture.steps, 9);
  EXPECT_EQ(input->request.picture.guidance_scale, 2.0);
  EXPECT_TRUE(input->request.picture.seed.has_value());
  EXPECT_EQ(input->request.picture.width, 1024);
}

TEST_F(RunpodInput, TheSchemaNamesWhatIsTaken) {
  std::ifstream file(worker::testing::source() / "docs/runpod/generate.schema.json");
  const json schema = json::parse(file);
  json input;
  for (const auto& [name, property] : schema["properties"].items()) input[name] = nullptr;
  input["prompt"] = "x";
  EXPECT_EQ(problem(input.dump().c_str()), "");
  EXPECT_EQ(schema["additionalProperties"], false);
  EXPECT_GT(input.size(), 15u);
}

TEST_F(RunpodInput, RefusesWithTheNameOfTheField) {
  EXPECT_NE(problem("[]").find("input must be an object"), std::string::npos);
  EXPECT_NE(problem("{}").find("prompt is wanted"), std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","steps":3,"num_inference_steps":4})").find("one setting"),
            std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","loras":["sun"]})").find("loras[0].name"), std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","loras":{"moon":99}})").find("weight must be between"),
            std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","loras":["http://10.0.0.1/a"]})").find("loras[0].url"),
            std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","model":"n"})").find("model 'n' is not known"),
            std::string::npos);
  EXPECT_NE(problem(R"({"prompt":"x","width":12.5})").find("width must be an integer"),
            std::string::npos);
}

}  // namespace
}  // namespace limner::runpod
