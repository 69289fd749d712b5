#include "runpod/job_drawer.h"

#include <gtest/gtest.h>

#include <fstream>

#include "delivery/crypto.h"
#include "image/encode.h"
#include "runpod/job_error.h"
#include "worker/testing.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using worker::testing::source;

constexpr const char* kTemplates = R"({
  "templates": {
    "portrait": {"name": "Portrait", "description": "Faces", "checkpoint": {
        "filename": "micro-sd1.safetensors", "diffusers_dir": "micro-sd1"},
      "defaults": {"steps": 3, "width": 48, "height": 48, "prompt_prefix": "a face"}},
    "missing": {"checkpoint": {"filename": "none.safetensors", "diffusers_dir": "none"}}},
  "default_template": "portrait"})";

class RunpodDrawer : public ::testing::Test {
 protected:
  RunpodDrawer() {
    const auto models = folder_.path() / "models";
    fs::create_directories(models);
    fs::create_directory_symlink(worker::testing::micro_model("micro-sd1"), models / "micro-sd1");
    fs::create_directories(folder_.path() / "loras");
    fs::create_symlink(source() / "tests/parity/fixtures/adapters/micro-sd1.adapter.safetensors",
                       folder_.path() / "loras/moon.safetensors");
    fs::create_directories(folder_.path() / "volume");
    worker::CatalogOptions catalog;
    catalog.model_folders = {models};
    catalog.adapter_folders = {folder_.path() / "loras"};
    catalog.look_every = std::chrono::milliseconds(0);
    catalog_ = std::make_unique<worker::CatalogBuilder>(
        catalog, [this] { return models_.loaded(); }, log_);
    catalog_->wait_for_hashes();  // they stand in the pictures
    worker::AdapterResolverOptions resolver;
    resolver.folders = catalog.adapter_folders;
    resolver.downloads.folder = folder_.path() / "downloads";
    adapters_ = std::make_unique<worker::AdapterResolver>(resolver);
    volume_.emplace(VolumeFolder::open(folder_.path() / "volume").value());
    make();
  }

  void make(DrawerOptions options = {}) {
    DrawerServices services{*catalog_, models_, *adapters_, network_, log_, clock_, *monitor_};
    services.templates = templates_.get();
    services.volume = &*volume_;
    drawer_ = std::make_unique<JobDrawer>(services, std::move(options));
  }
  void add_templates() {
    std::ofstream(folder_.path() / "templates.json") << kTemplates;
    templates_ = platform::TemplateStore::open(folder_.path() / "templates.json").value();
    make();
  }

  static json input(json more = json::object()) {
    json asked = {{"prompt", "a red circle"}, {"width", 64}, {"height", 48}, {"steps", 4},
                  {"sampler", "euler"},       {"seed", 7}};
    asked.update(more);
    return asked;
  }
  json drawn(const json& asked) {
    const auto answer = drawer_->draw("job-1", asked, {}, {});
    EXPECT_TRUE(answer.ok()) << answer.error().message;
    return answer.ok() ? answer->output : json();
  }
  Error refused(const json& asked) {
    const auto answer = drawer_->draw("job-1", asked, {}, {});
    EXPECT_FALSE(answer.ok());
    return answer.ok() ? Error{} : answer.error();
  }
  std::string image(const json& asked) { return drawn(asked)["images"][0]; }

  worker::testing::TemporaryFolder folder_;
  NoLog log_;
  platform::ManualClock clock_;
  std::unique_ptr<ResourceMonitor> monitor_ = std::make_unique<ResourceMonitor>(
      MonitorOptions{.data_folder = folder_.path(), .spare_memory = 0, .spare_disk = 0});
  platform::http::NetworkRules network_;
  worker::ModelCache models_ = worker::ModelCache::open({}, "cpu").value();
  std::unique_ptr<worker::CatalogBuilder> catalog_;
  std::unique_ptr<worker::AdapterResolver> adapters_;
  std::unique_ptr<platform::TemplateStore> templates_;
  std::optional<VolumeFolder> volume_;
  std::unique_ptr<JobDrawer> drawer_;
};

TEST_F(RunpodDrawer, AnAnswerThatIsTooLargeIsUploadedOrRefused) {
  make({.most_bytes = 100, .upload = {}});
  EXPECT_EQ(refused(input()).code, ErrorCode::kUnsupported);
  make({.most_bytes = 100, .upload = [](std::vector<ResultFile> files, std::stop_token) {
          EXPECT_GT(files.at(0).bytes.size(), 100u);
          return Result<std::vector<std::string>>({"https://x.example/" + files.at(0).key});
        }});
  const json output = drawn(input());
  EXPECT_EQ(output["images"], json::array({"https://x.example/job-1/0.png"}));
  EXPECT_EQ(output["images_are"], "urls");
}

TEST_F(RunpodDrawer, WarmingUpLoadsTheDefaultModel) {
  EXPECT_EQ(drawer_->state()["model"]["is_loaded"], false);
  EXPECT_EQ(drawer_->warm_up({}).value(), "micro-sd1");
  EXPECT_EQ(models_.loaded(), std::vector<std::string>{"micro-sd1"});
  EXPECT_EQ(drawer_->state()["model"]["is_loaded"], true);
}

TEST_F(RunpodDrawer, AnAdapterLeavesNothingBehind) {
  const std::string base = image(input());
  const std::string with = image(input({{"loras", {{"moon", 1.0}}}}));
  EXPECT_NE(with, base);
  EXPECT_EQ(image(input()), base);
  EXPECT_EQ(image(input({{"loras", {{"moon", 1.0}}}})), with);
  EXPECT_EQ(image(input()), base);
}

TEST_F(RunpodDrawer, APromptMayBeOfAnyLength) {
  std::string words;
  for (int i = 0; i < 600; ++i) words += "red circle ";
  const json long_one = drawn(input({{"prompt", words + "at dawn"}}));
  EXPECT_FALSE(long_one.contains("warnings")) << long_one["warnings"].dump();
  EXPECT_NE(long_one["images"][0], image(input({{"prompt", words + "at night"}})));
}

TEST_F(RunpodDrawer, ATemplateGivesItsModelAndDefaults) {
  add_templates();
  const json output = drawn({{"prompt", "x"}, {"template", "portrait"}, {"seed", 7}});
  EXPECT_EQ(output["template"], "portrait");
  const json spelled_out = drawn({{"prompt", "a face, x"},
                                  {"model", "micro-sd1"},
                                  {"steps", 3},
                                  {"width", 48},
                                  {"height", 48},
                                  {"seed", 7}});
  EXPECT_EQ(output["images"], spelled_out["images"]);
  EXPECT_FALSE(spelled_out.contains("template"));
  // The default one, where neither a model nor a template is named.
  EXPECT_EQ(drawn({{"prompt", "x"}, {"seed", 7}})["images"], output["images"]);
}

TEST_F(RunpodDrawer, ATemplateWithoutItsModelIsAnErrorAndNothingElseIsDrawn) {
  add_templates();
  const Error missing = refused({{"prompt", "x"}, {"template", "missing"}});
  EXPECT_NE(missing.message.find("template 'missing' is not built"), std::string::npos)
      << missing.message;
  EXPECT_NE(refused({{"prompt", "x"}, {"template", "potrait"}}).message.find("did you mean"),
            std::string::npos);
}

TEST_F(RunpodDrawer, ListsItsTemplates) {
  EXPECT_EQ(drawn({{"action", "list_templates"}}),
            (json{{"templates", json::object()}, {"default_template", nullptr}}));
  add_templates();
  const json list = drawn({{"action", "list_templates"}});
  EXPECT_EQ(list["default_template"], "portrait");
  EXPECT_EQ(list["templates"]["portrait"], (json{{"name", "Portrait"}, {"description", "Faces"}}));
  EXPECT_EQ(list["templates"].size(), 2u);
}

TEST_F(RunpodDrawer, UnknownFieldsAreRefusedOrReported) {
  EXPECT_NE(refused(input({{"stepz", 3}})).message.find("stepz is not known"), std::string::npos);
  make({.report_unknown = true});
  EXPECT_EQ(drawn(input({{"stepz", 3}}))["unknown_fields"], json::array({"stepz"}));
  EXPECT_FALSE(drawn(input()).contains("unknown_fields"));
}

// ---- headshots

class RunpodHeadshot : public RunpodDrawer {
 protected:
  RunpodHeadshot() {
    make({.upload =
              [this](std::vector<ResultFile> files, std::stop_token) {
                stored_ = std::move(files);
                return upload_;
              },
          .kind = JobKind::kHeadshot});
  }
  static json headshot(json more = json::object()) {
    json asked = {{"prompt", "a red circle"}, {"user_id", "ada"}, {"width", 64}, {"height", 48},
                  {"num_inference_steps", 2}, {"seed", 7}};
    asked.update(more);
    return asked;
  }
  std::vector<ResultFile> stored_;
  Result<std::vector<std::string>> upload_{{"https://x.example/signed"}};
};

TEST_F(RunpodHeadshot, GoesToStorageUnderItsUser) {
  const json output = drawn(headshot());
  EXPECT_EQ(output["status"], "success");
  EXPECT_EQ(output["image_url"], "https://x.example/signed");
  EXPECT_EQ(output["seed"], 7);
  EXPECT_GT(output["processing_time"].get<double>(), 0.0);
  EXPECT_FALSE(output.contains("images"));
  ASSERT_EQ(stored_.size(), 1u);
  EXPECT_EQ(stored_[0].key, "ada/20231114T221320.000Z-job-1.png");
  const auto text = image::read_png_text(stored_[0].bytes).value();
  EXPECT_NE(text.at("parameters").find("Seed: 7"), std::string::npos);
}

TEST_F(RunpodHeadshot, TakesTheStepsAndGuidanceOfItsKindWhereNoneAreGiven) {
  json asked = headshot();
  asked.erase("num_inference_steps");
  drawn(asked);
  const std::string text = image::read_png_text(stored_.at(0).bytes).value().at("parameters");
  EXPECT_NE(text.find("Steps: 25"), std::string::npos) << text;
  EXPECT_NE(text.find("CFG scale: 7.5"), std::string::npos) << text;
}

TEST_F(RunpodHeadshot, ItsPromptIsCleaned) {
  drawn(headshot({{"prompt", " a\tred\n\ncir\u200Bcle \u202E"}}));
  const std::string text = image::read_png_text(stored_.at(0).bytes).value().at("parameters");
  EXPECT_TRUE(text.starts_with("a red circle\n")) << text;
}

TEST_F(RunpodHeadshot, AStorageThatFailsIsTheJobsError) {
  upload_ = Error{ErrorCode::kUnavailable, "[supabase] no connection", true};
  const Error error = refused(headshot());
  EXPECT_EQ(error.code, ErrorCode::kUnavailable);
  EXPECT_EQ(error_type(error.code), "runtime");
  make({.kind = JobKind::kHeadshot});
  EXPECT_NE(refused(headshot()).message.find("SUPABASE_URL"), std::string::npos);
}

// ---- the volume

TEST_F(RunpodDrawer, PicturesAreSavedOnTheVolume) {
  const std::string picture = image(input());
  const json output = drawn(input({{"output_path", "out/new/a.png"}}));
  EXPECT_EQ(output["files"], json::array({"out/new/a.png"}));
  EXPECT_FALSE(output.contains("images"));
  const auto saved = volume_->read("out/new/a.png", 1 << 20).value();
  EXPECT_EQ(delivery::base64(saved), picture);
  EXPECT_EQ(drawn(input({{"output_path", "a.png"}, {"include_images", true}}))["images"][0],
            picture);
}

TEST_F(RunpodDrawer, SeveralPicturesHaveFilesOfTheirOwn) {
  const json output =
      drawn(input({{"output_path", "{seed}/{index}.png"}, {"num_images", 2}, {"steps", 1}}));
  EXPECT_EQ(output["files"], json::array({"7/0.png", "8/1.png"}));
  EXPECT_TRUE(fs::exists(volume_->path() / "8/1.png"));
}

TEST_F(RunpodDrawer, WhatLeavesTheVolumeIsRefusedBeforeAnythingIsDrawn) {
  fs::create_symlink(folder_.path(), volume_->path() / "up");
  EXPECT_EQ(refused(input({{"output_path", "up/a.png"}})).code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(refused(input({{"output_path", "../a.png"}})).code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(models_.loaded().empty());
}

TEST_F(RunpodDrawer, APictureToDrawFromIsLookedAtAndThenRefusedByTheModel) {
  const auto put = [&](const char* name, std::string_view text) {
    std::ofstream(volume_->path() / name) << text;
  };
  put("text.png", "no picture");
  image::Bitmap bitmap{8, 8, std::vector<std::uint8_t>(8 * 8 * 3)};
  volume_->write("me.png", image::encode(bitmap, {}).value()).value_or_throw();
  EXPECT_EQ(refused(input({{"image", "none.png"}})).code, ErrorCode::kNotFound);
  EXPECT_TRUE(refused(input({{"image", "text.png"}})).message.starts_with("image: "));
  EXPECT_TRUE(
      refused(input({{"image", "me.png"}, {"mask", "text.png"}})).message.starts_with("mask: "));
  const Error error = refused(input({{"image", "me.png"}}));
  EXPECT_EQ(error.code, ErrorCode::kUnsupported);
  EXPECT_NE(error.message.find("'micro-sd1' of the family sd1 draws from words alone"),
            std::string::npos);
}

// ---- failures

TEST_F(RunpodDrawer, AJobThatFindsNoMemoryIsRefusedBeforeItIsDrawn) {
  monitor_ = std::make_unique<ResourceMonitor>(
      MonitorOptions{.data_folder = folder_.path(), .spare_memory = std::uint64_t{1} << 60});
  make();
  const Error error = refused(input());
  EXPECT_EQ(error.code, ErrorCode::kOutOfMemory);
  EXPECT_TRUE(error.retryable);
  EXPECT_TRUE(models_.loaded().empty());
  EXPECT_EQ(drawer_->state()["worker"]["jobs_failed"], 1);
}

TEST_F(RunpodDrawer, AModelThatCannotBeLoadedIsAnInitializationErrorAndIsLeftAloneInTheEnd) {
  // A copy whose weights are cut short behind their header, which alone is read before loading.
  const auto broken = folder_.path() / "models/broken";
  fs::copy(worker::testing::micro_model("micro-sd1"), broken, fs::copy_options::recursive);
  for (const auto& entry : fs::recursive_directory_iterator(broken)) {
    if (entry.path().extension() == ".safetensors") {
      fs::permissions(entry.path(), fs::perms::owner_write, fs::perm_options::add);
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      std::uint64_t header = 0;
      file.read(reinterpret_cast<char*>(&header), sizeof(header));
      file.seekp(static_cast<std::streamoff>(8 + header));
      for (int i = 0; i < 4096; ++i) file.put('\xFF');  // NaN in every format
    }
  }
  make({.breaker = {.failures = 2, .pause = std::chrono::hours(1)}});
  catalog_->refresh();
  EXPECT_NE(error_type(refused(input({{"model", "broken"}})).code), "validation");
  EXPECT_TRUE(models_.loaded().empty());  // dropped, so that the next job loads it anew
  refused(input({{"model", "broken"}}));
  const Error error = refused(input({{"model", "broken"}}));
  EXPECT_EQ(error.code, ErrorCode::kUnavailable) << error.message;
  EXPECT_NE(error.message.find("left alone"), std::string::npos) << error.message;
  drawn(input({{"model", "micro-sd1"}}));
}

TEST(RunpodError, HasTheNamesThatClientsLookFor) {
  PlatformSettings settings;
  settings.worker_id = "pod-1";
  const Error error{ErrorCode::kUnavailable, "no \xFF room", true};
  const json told =
      json::parse(error_text(error, settings, {{"a", 1}}, platform::Millis{1'700'000'000'123}));
  EXPECT_EQ(told["status"], "error");
  EXPECT_EQ(told["error"], "no \uFFFD room");
  EXPECT_EQ(told["message"], told["error"]);
  EXPECT_EQ(told["error_message"], told["error"]);
  EXPECT_EQ(told["code"], "unavailable");
  EXPECT_EQ(told["error_type"], "runtime");
  EXPECT_EQ(told["details"]["a"], 1);
  EXPECT_EQ(told["timestamp"], "2023-11-14T22:13:20.123Z");
  EXPECT_EQ(told["retryable"], true);
  EXPECT_EQ(told["worker_id"], "pod-1");
  EXPECT_EQ(error_type(ErrorCode::kInvalidArgument), "validation");
  EXPECT_EQ(error_type(ErrorCode::kInvalidModel), "initialization");
}

}  // namespace
}  // namespace limner::runpod
