#include "runpod/runner.h"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>

#include "image/encode.h"
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
  ~RunpodWorker() override { gate_.open(); }

  void make_drawer(DrawerOptions options = {}) {
    options.patience.call = patience_;
    catalog_ = std::make_unique<worker::CatalogBuilder>(
        catalog_options_, [this] { return models_.loaded(); }, log_);
    adapters_ = std::make_unique<worker::AdapterResolver>(resolver_options_);
    drawer_ = std::make_unique<JobDrawer>(
        DrawerServices{*catalog_, models_, *adapters_, network_, log_, clock_, monitor_},
        std::move(options));
  }
  void start(DrawerOptions options = {}) {
    make_drawer(std::move(options));
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
  platform::SystemClock clock_;
  ResourceMonitor monitor_{{.data_folder = folder_.path(), .spare_memory = 0, .spare_disk = 0}};
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
  worker::testing::Gate gate_;
  milliseconds patience_{60'000};
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
  EXPECT_EQ(error["code"], "invalid_argument");
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
  EXPECT_EQ(json::parse(done["error"].get<std::string>())["code"], "result_refused");
}

TEST_F(RunpodWorker, WhileAJobsFilesGoToStorageTheNextOneIsDrawn) {
  platform_.answer("/job-take/", {job("large", input()), job("next", input()), {204}});
  std::atomic<bool> first = true;
  DrawerOptions drawing;
  drawing.most_bytes = 100;
  drawing.upload = [&](std::vector<ResultFile>, std::stop_token) {
    if (first.exchange(false)) {
      EXPECT_TRUE(platform_.soon([&] { return !platform_.results("next").empty(); }));
    }
    return Result<std::vector<std::string>>({"https://storage.example.com/1.png"});
  };
  start(std::move(drawing));
  EXPECT_EQ(result("large")["output"]["images_are"], "urls");
  EXPECT_EQ(platform_.results("next").size(), 1u);
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

TEST_F(RunpodWorker, AStopThatComesBeforeItsJobIsHeeded) {
  json later = input();
  later["seed"] = 9;
  auto overtaken = job("j1", input());
  overtaken.once = [&] { return platform_.calls("/job-stop/").size() > 1; };
  ScriptedPlatform::Answer stop{200, R"({"jobsToStop":["j1"]})"};
  stop.once = [&] { return !platform_.calls("/job-take/").empty(); };
  platform_.answer("/job-stop/", {stop, {204}});
  platform_.answer("/job-take/", {overtaken, job("j1", later), {204}});
  start();
  EXPECT_EQ(result("j1")["output"]["seeds"], json::array({9}));
  EXPECT_TRUE(runner_->drain(milliseconds(5'000)));
  EXPECT_EQ(platform_.results("j1").size(), 1u);
}

TEST_F(RunpodWorker, AJobThatCrossesItsOwnResultIsNotDrawnAgain) {
  options_.concurrency = 2;
  auto again = job("j1", input());
  again.once = [&] { return !platform_.results("j1").empty(); };
  platform_.answer("/job-take", {job("j1", input()), again, {204}});
  start();
  ASSERT_TRUE(platform_.soon([&] { return platform_.calls("/job-take").size() > 2; }));
  EXPECT_TRUE(runner_->drain(milliseconds(5'000)));
  EXPECT_EQ(platform_.results("j1").size(), 1u);
}

TEST_F(RunpodWorker, AJobThatFailedMayBeTriedAgainUnderItsId) {
  ScriptedPlatform::Answer nothing{204};
  nothing.once = [&] { return !platform_.results("j1").empty(); };
  platform_.answer("/job-take/", {job("j1", json::array()), nothing, job("j1", input()), {204}});
  start();
  ASSERT_TRUE(platform_.soon([&] { return platform_.results("j1").size() == 2; }));
  EXPECT_TRUE(platform_.results("j1")[0].contains("error"));
  EXPECT_TRUE(platform_.results("j1")[1].contains("output"));
}

TEST_F(RunpodWorker, AJobThatComesWithTheEndIsFinishedOrGivenBack) {
  const auto taken_at_the_end = [&](const json& asked, milliseconds time) {
    auto late = job("late", asked);
    late.once = [] { return false; };
    platform_.answer("/job-take/", {late, {204}});
    const std::size_t before = platform_.calls("/job-take/").size();
    runner_.reset();
    start();
    EXPECT_TRUE(platform_.soon([&] { return platform_.calls("/job-take/").size() > before; }));
    EXPECT_TRUE(runner_->drain(time));
    return platform_.results("late").back();
  };
  EXPECT_TRUE(taken_at_the_end(input(), milliseconds(5'000)).contains("output"));
  json slow = input();
  slow["steps"] = 1000;
  slow["num_images"] = 8;
  const json told = taken_at_the_end(slow, milliseconds(100));
  EXPECT_EQ(json::parse(told["error"].get<std::string>())["retryable"], true);
}

TEST_F(RunpodWorker, ADrawingThatHangsIsGivenUpAndAFreshWorkerIsWanted) {
  std::atomic<int> steps = 0;
  patience_ = milliseconds(1'500);
  options_.at = [&](std::string_view point) {
    if (point == "step" && ++steps == 2) gate_.pass();
  };
  gate_.close();
  platform_.answer("/job-take/", {job("j1", input()), {204}});
  start();
  const json told = result("j1");
  EXPECT_EQ(told["stopPod"], true);
  const json error = json::parse(told["error"].get<std::string>());
  EXPECT_EQ(error["retryable"], true);
  EXPECT_NE(error["error_message"].get<std::string>().find("no sign of life"), std::string::npos);
  EXPECT_TRUE(runner_->finished());
  EXPECT_TRUE(runner_->drain(milliseconds(5'000)));
  EXPECT_TRUE(runner_->left_behind());
  EXPECT_NE(platform_.calls("/ping/").back().target.find("status=unhealthy&check=drawing"),
            std::string::npos);
  gate_.open();
  runner_.reset();
  EXPECT_EQ(platform_.results("j1").size(), 1u);
}

TEST_F(RunpodWorker, ADrawingThatDoesNotStopIsGivenUpAtTheEnd) {
  options_.stop_grace = milliseconds(50);
  options_.at = [&](std::string_view point) {
    if (point == "step") gate_.pass();
  };
  gate_.close();
  platform_.answer("/job-take/", {job("j1", input()), {204}});
  start();
  ASSERT_TRUE(gate_.somebody_waits());
  EXPECT_TRUE(runner_->drain(milliseconds(20)));
  EXPECT_TRUE(runner_->left_behind());
  EXPECT_EQ(json::parse(result("j1")["error"].get<std::string>())["retryable"], true);
  gate_.open();
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

TEST_F(RunpodWorker, AStreamThatFailsAfterAPictureEndsAsAStream) {
  json asked = input();
  asked["stream"] = true;
  asked["num_images"] = 2;
  int decoded = 0;
  options_.at = [&](std::string_view point) {
    if (point == "decode" && ++decoded == 2) throw std::runtime_error("the second one breaks");
  };
  platform_.answer("/job-take/", {job("j1", asked), {204}});
  start();
  const json error = json::parse(result("j1")["error"].get<std::string>());
  EXPECT_NE(error["error_message"].get<std::string>().find("the second one breaks"),
            std::string::npos);
  EXPECT_EQ(platform_.calls("/job-stream/").size(), 1u);
  EXPECT_TRUE(platform_.calls("/job-done/").back().target.ends_with("&isStream=true"));
}

}  // namespace
}  // namespace limner::runpod
