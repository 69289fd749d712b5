// `limner volume setup` from a local web server and `limner volume check` of what it made, as a
// person runs them.
#include <sys/wait.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/file_hash.h"
#include "fault/https_server.h"
#include "integration/program.h"
#include "platform/http/download.h"

namespace limner {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using namespace std::chrono_literals;

const std::string kAdapter =
    LIMNER_SOURCE_DIR "/tests/parity/fixtures/adapters/micro-sd1.adapter.safetensors";

HttpsServer& server() {
  static HttpsServer one;
  return one;
}

class VolumeTools : public Program {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(server().ready) << "no python3 or openssl here?";
    setenv("LIMNER_EGRESS_ALLOW", "127.0.0.1", 1);
    setenv("SSL_CERT_FILE", server().authority().c_str(), 1);
    setenv("HF_ENDPOINT", server().url("").c_str(), 1);
    setenv("HF_TOKEN", "hub-key", 1);
    fs::copy_file(kAdapter, server().files() / "style.safetensors");
    const std::string convert = "'" LIMNER_PROGRAM "' model convert '" + micro("micro-sd1") +
                                "' '" + (server().files() / "base.safetensors").string() +
                                "' >/dev/null";
    ASSERT_EQ(std::system(convert.c_str()), 0);
  }

  // Another name than the hub's, whose /owner/name are repositories.
  static std::string file(const std::string& name) {
    return "https://localhost:" + std::to_string(server().main) + "/files/" + name;
  }
  static std::string base() { return "--model '" + file("base.safetensors") + "'"; }
  static std::string style() { return "--lora '" + file("style.safetensors?token=sesame") + "'"; }

  fs::path volume() const { return folder_ / "volume"; }
  json manifest() const { return json::parse(content(volume() / "limner-volume.json")); }
  std::set<std::string> written_down() const {
    std::set<std::string> paths;
    const json files = manifest()["files"];
    for (const auto& [path, entry] : files.items()) paths.insert(path);
    return paths;
  }
  json check(int exit_code, const std::string& options = "") const {
    const Outcome outcome = run("volume check --volume volume --json " + options);
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.out << outcome.err;
    return json::parse(outcome.out);
  }
  // The volume has this problem and no other.
  void expect_problem(const std::string& kind, const std::string& path) const {
    const json report = check(1);
    ASSERT_EQ(report["problems"].size(), 1u) << report.dump(1);
    EXPECT_EQ(report["problems"][0]["kind"], kind);
    EXPECT_EQ(report["problems"][0]["path"], path);
  }

  static std::size_t asked(const std::string& path) {
    platform::http::NetworkRules rules;
    rules.allow = platform::http::parse_address_ranges("127.0.0.1").value();
    rules.ca_file = server().authority();
    const auto log =
        json::parse(platform::http::fetch({server().url("/log"), 64u << 20, rules, {}}).value());
    std::size_t count = 0;
    for (const auto& entry : log["requests"])
      count += entry["path"].get<std::string>().starts_with(path) ? 1 : 0;
    return count;
  }
};

TEST_F(VolumeTools, SetUpBringsConvertsAndWritesDownEverything) {
  done("volume setup --convert " + base() + " " + style());
  EXPECT_TRUE(fs::exists(volume() / "models/base/model_index.json"));
  EXPECT_TRUE(fs::exists(volume() / "models/base/unet/diffusion_pytorch_model.fp16.safetensors"));
  EXPECT_TRUE(fs::exists(volume() / "models/downloads/base.safetensors"));
  const std::set<std::string> paths = written_down();
  EXPECT_TRUE(paths.contains("loras/style.safetensors"));
  EXPECT_FALSE(paths.contains("models/downloads/base.safetensors")) << "it stays at home";
  const json style_entry = manifest()["files"]["loras/style.safetensors"];
  EXPECT_EQ(style_entry["sha256"], file_sha256(kAdapter).value());
  EXPECT_EQ(style_entry["bytes"], fs::file_size(kAdapter));
  EXPECT_EQ(style_entry["source"], file("style.safetensors"));
  EXPECT_EQ(content(volume() / "limner-volume.json").find("sesame"), std::string::npos);
  EXPECT_FALSE(fs::exists(volume() / ".limner-setup.json"));
  for (const std::string& path : files_below(volume())) {
    const bool hidden = path.starts_with('.') || path == "limner-volume.json" ||
                        path.starts_with("models/downloads/");
    EXPECT_EQ(paths.contains(path), !hidden) << path;
  }
  EXPECT_TRUE(check(0)["ok"]);
  // What it draws is what the model as it came draws, in float16.
  const auto drawn = latents("volume/models/base --dtype float32");
  EXPECT_LT(difference(drawn, latents("'" + micro("micro-sd1") + "' --dtype float32")), 0.02);
}

TEST_F(VolumeTools, ASecondRunFetchesNothing) {
  const std::string command = "volume setup --convert " + base() + " " + style();
  done(command);
  const auto before = asked("/files/");
  const json first = manifest();
  done(command);
  EXPECT_EQ(asked("/files/"), before);
  EXPECT_EQ(manifest()["files"], first["files"]);
  done("volume setup --volume volume");
  EXPECT_EQ(manifest()["files"], first["files"]) << "without a wish it takes in what is there";
}

TEST_F(VolumeTools, AKilledRunGoesOn) {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    if (chdir(folder_.c_str()) != 0) _exit(126);
    execl(LIMNER_PROGRAM, "limner", "volume", "setup", "--model", "owner/slow", nullptr);
    _exit(127);
  }
  const fs::path part =
      volume() / "models/.slow.coming/unet/diffusion_pytorch_model.safetensors.part";
  for (int i = 0; i < 500 && !fs::exists(part); ++i) std::this_thread::sleep_for(20ms);
  expect_refused("volume setup --volume volume", 1, "another `limner volume` is at work");
  ASSERT_EQ(kill(child, SIGKILL), 0);
  waitpid(child, nullptr, 0);
  EXPECT_FALSE(fs::exists(volume() / "limner-volume.json"));
  EXPECT_GE(check(1)["problems"].size(), 2u) << "no manifest, and what is half there";
  done("volume setup --model owner/slow");
  EXPECT_EQ(written_down().size(), 6u);
  EXPECT_NE(manifest()["files"]["models/slow/unet/config.json"]["source"].get<std::string>().find(
                "/owner/slow@c0ffee"),
            std::string::npos);
}

TEST_F(VolumeTools, WhatIsNotWhatItShouldBeIsRefused) {
  expect_refused("volume setup --model '" + file("style.safetensors") + "'", 2,
                 "is an adapter: give it with --lora");
  expect_refused("volume setup --lora '" + file("base.safetensors") + "'", 2,
                 "is a model: give it with --model");
  expect_refused("volume setup " + base().substr(0, base().size() - 1) +
                     "#sha256=" + std::string(64, 'a') + "'",
                 1, "want SHA-256");
  EXPECT_FALSE(fs::exists(volume() / "limner-volume.json"));
  EXPECT_TRUE(fs::is_empty(volume() / "loras"));

  done("volume setup " + style());
  std::fstream damaged(volume() / "loras/style.safetensors", std::ios::in | std::ios::out);
  damaged.seekp(-2, std::ios::end);
  damaged.put('x');
  damaged.close();
  const Outcome again = run("volume setup " + style());
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_NE(again.err.find("is not what came from"), std::string::npos) << again.err;
  fs::remove(volume() / "loras/style.safetensors");
  done("volume setup " + style());
  EXPECT_TRUE(check(0)["ok"]);
}

TEST_F(VolumeTools, TemplatesAreBuiltOntoIt) {
  const json checkpoint = {{"name", "Base"},
                           {"url", file("base.safetensors")},
                           {"filename", "base.safetensors"},
                           {"diffusers_dir", "base-df"}};
  const json lora = {{"name", "Style"},
                     {"url", file("style.safetensors")},
                     {"filename", "style.safetensors"},
                     {"scale", 1.5}};
  const json styled = {{"name", "Styled"}, {"checkpoint", checkpoint}, {"loras", {lora}}};
  std::ofstream(folder_ / "t.json")
      << json{{"templates", {{"styled", styled}}}, {"default_template", "styled"}};
  const json said = json::parse(done("volume setup --templates t.json --json"));
  EXPECT_EQ(said["volume"], "volume");
  const json files = manifest()["files"];
  EXPECT_EQ(files["models/styled-merged-df/model_index.json"]["source"],
            "built from the template styled");
  EXPECT_TRUE(files.contains("models/base-df/model_index.json"));
  EXPECT_TRUE(files.contains("templates.json"));
  EXPECT_TRUE(check(0)["ok"]);
}

TEST_F(VolumeTools, EachDamageIsOneSentence) {
  done("volume setup --convert " + base() + " " + style());
  const fs::path unet = volume() / "models/base/unet/diffusion_pytorch_model.fp16.safetensors";
  const std::string whole = content(unet);
  fs::resize_file(unet, whole.size() / 2);
  expect_problem("half_written", "models/base/unet/diffusion_pytorch_model.fp16.safetensors");
  const Outcome said = run("volume check --volume volume --quick");
  EXPECT_EQ(said.exit_code, 1);
  EXPECT_EQ(std::count(said.out.begin(), said.out.end(), '\n'), 1) << said.out;
  EXPECT_TRUE(said.out.starts_with("problem: models/base/unet/")) << said.out;
  std::ofstream(unet, std::ios::binary) << whole;
  EXPECT_TRUE(check(0, "--quick")["ok"]);

  fs::rename(volume() / "models/base", volume() / "base");
  EXPECT_EQ(check(1)["problems"][0]["path"], "models/base");
  fs::rename(volume() / "base", volume() / "models/base");
  fs::copy_file(kAdapter, volume() / "models/style.safetensors");
  expect_problem("misplaced", "models/style.safetensors");
}

TEST_F(VolumeTools, AMountThatHidesPartOfItIsTold) {
  if (std::system("unshare -rm true 2>/dev/null") != 0) GTEST_SKIP() << "no user namespaces here";
  done("volume setup " + style());
  const std::string line =
      "unshare -rm sh -c \"mount -t tmpfs none volume/loras && '" LIMNER_PROGRAM
      "' volume check --volume volume\" >said; echo $?";
  EXPECT_EQ(std::system(("cd '" + folder_.string() + "' && " + line + " >code").c_str()), 0);
  EXPECT_EQ(content(folder_ / "code"), "1\n");
  const std::string said = content(folder_ / "said");
  EXPECT_NE(said.find("loras is covered by a mount of its own (tmpfs"), std::string::npos) << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
}

TEST_F(VolumeTools, WrongUseIsToldInOneLine) {
  expect_refused("volume upload --volume nowhere --bucket x --region EU-RO-1", 2,
                 "RUNPOD_S3_ACCESS_KEY");
  expect_refused("volume setup --model owner", 2, "owner/name");
  std::ofstream(folder_ / ".env") << "RUNPOD_S3_ACCESS_KEY=a\nwhat is this\n";
  expect_refused("volume upload --bucket x --region EU-RO-1", 2, ".env:2: want NAME=VALUE");
  EXPECT_EQ(run("volume check --volume nowhere").exit_code, 1);
}

}  // namespace
}  // namespace limner
