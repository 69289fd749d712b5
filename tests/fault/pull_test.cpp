// `limner model pull` and `--lora URL` as a person runs them, against a hub, a Civitai and a file
// server that are one local program.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/file_hash.h"
#include "fault/https_server.h"
#include "platform/http/download.h"

namespace limner {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

HttpsServer& server() {
  static HttpsServer one;
  return one;
}

class Pull : public testing::Test {
 protected:
  struct Outcome {
    int exit_code = -1;
    std::string out, err;
  };

  static void SetUpTestSuite() {
    ASSERT_TRUE(server().ready) << "no python3 or openssl here?";
    setenv("LIMNER_EGRESS_ALLOW", "127.0.0.1", 1);
    setenv("SSL_CERT_FILE", server().authority().c_str(), 1);
    setenv("HF_ENDPOINT", server().url("").c_str(), 1);
    setenv("CIVITAI_ENDPOINT", civitai("").c_str(), 1);
    setenv("HF_TOKEN", "hub-key", 1);
    setenv("CIVITAI_API_KEY", "civitai-key", 1);
  }
  void SetUp() override {
    folder_ = server().folder / testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::create_directory(folder_);
    setenv("LIMNER_MODELS", (folder_ / "models").c_str(), 1);
    setenv("LIMNER_CACHE", (folder_ / "cache").c_str(), 1);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::string civitai(const std::string& path) {
    return "https://127.0.0.1:" + std::to_string(server().other) + path;
  }

  static std::string text(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  // `arguments` as a shell reads them.
  Outcome run(const std::string& arguments) const {
    const fs::path out = folder_ / "stdout", err = folder_ / "stderr";
    const std::string line =
        "'" LIMNER_PROGRAM "' " + arguments + " >'" + out.string() + "' 2>'" + err.string() + "'";
    const int status = std::system(line.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), text(out), text(err)};
  }

  void expect_refused(const std::string& arguments, int exit_code, const std::string& word) const {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, exit_code) << arguments << "\n" << outcome.err;
    EXPECT_EQ(outcome.out, "");
    EXPECT_NE(outcome.err.find(word), std::string::npos) << arguments << "\n" << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    for (const char* secret : {"hub-key", "civitai-key", "sesame"}) {
      EXPECT_EQ(outcome.err.find(secret), std::string::npos) << outcome.err;
    }
  }

  // What stands under models/, paths only.
  std::vector<std::string> models() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / "models")) {
      if (!entry.is_directory()) {
        found.push_back(entry.path().lexically_relative(folder_ / "models").string());
      }
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  static std::vector<nlohmann::json> asked(const std::string& path) {
    platform::http::NetworkRules rules;
    rules.allow = platform::http::parse_address_ranges("127.0.0.1").value();
    rules.ca_file = server().authority();
    const auto log = nlohmann::json::parse(
        platform::http::fetch({server().url("/log"), 64u << 20, rules, {}}).value());
    std::vector<nlohmann::json> found;
    for (const auto& entry : log["requests"]) {
      if (entry["path"].get<std::string>().starts_with(path)) found.push_back(entry);
    }
    return found;
  }

  fs::path folder_;
};

TEST_F(Pull, ARepositoryBecomesAModelFolder) {
  const Outcome done = run("model pull owner/model --json");
  ASSERT_EQ(done.exit_code, 0) << done.err;
  const std::vector<std::string> wanted = {
      "model/README.md",        "model/model_index.json",
      "model/unet/config.json", "model/unet/diffusion_pytorch_model.safetensors",
      "model/vae/config.json",  "model/vae/diffusion_pytorch_model.safetensors"};
  EXPECT_EQ(models(), wanted);
  const auto body = nlohmann::json::parse(done.out);
  EXPECT_EQ(body["path"], (folder_ / "models" / "model").string());
  ASSERT_EQ(body["files"].size(), 6u);
  for (const auto& file : body["files"]) {
    EXPECT_EQ(file_sha256(file["path"].get<std::string>()).value(), file["sha256"]);
  }
  expect_refused("model pull owner/model", 2, "is there already");
  expect_refused("model pull owner/model --output '" + folder_.string() + "' --variant fp61", 1,
                 "no component has the variant fp61; there are: fp16");
  ASSERT_EQ(run("model pull '" + server().url("/owner/model/tree/main") + "' --output '" +
                (folder_ / "half").string() + "' --variant fp16")
                .exit_code,
            0);
  EXPECT_TRUE(fs::exists(folder_ / "half/model/unet/diffusion_pytorch_model.fp16.safetensors"));
  EXPECT_FALSE(fs::exists(folder_ / "half/model/unet/diffusion_pytorch_model.safetensors"));
}

TEST_F(Pull, KeysGoToTheirOwnHostAndNowhereElse) {
  ASSERT_EQ(run("model pull owner/model").exit_code, 0);
  ASSERT_EQ(run("model pull '" + civitai("/models/3?modelVersionId=7") + "'").exit_code, 0);
  for (const auto& request : asked("/")) {
    const bool from_hub = request["server"] == "main";
    const std::string key = request["headers"].value("Authorization", "");
    const std::string path = request["path"];
    if (path.starts_with("/cdn/")) {
      EXPECT_EQ(key, "") << "the hub's files come from elsewhere";
    }
    EXPECT_NE(key, from_hub ? "Bearer civitai-key" : "Bearer hub-key") << path;
  }
  setenv("HF_TOKEN", "sesame", 1);
  expect_refused("model pull owner/model --output '" + (folder_ / "b").string() + "'", 1,
                 "it wants a key");
  setenv("HF_TOKEN", "sesame\nX-Evil: 1", 1);
  expect_refused("model pull owner/model --output '" + (folder_ / "b").string() + "'", 2, "header");
  setenv("HF_TOKEN", "hub-key", 1);
}

TEST_F(Pull, AnInterruptedPullGoesOn) {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    execl(LIMNER_PROGRAM, "limner", "model", "pull", "owner/slow", nullptr);
    _exit(127);
  }
  const fs::path part =
      folder_ / "models/.slow.coming/unet/diffusion_pytorch_model.safetensors.part";
  for (int i = 0; i < 200 && !fs::exists(part); ++i) std::this_thread::sleep_for(20ms);
  std::this_thread::sleep_for(600ms);
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_TRUE(fs::exists(part));
  EXPECT_FALSE(fs::exists(folder_ / "models/slow")) << "a half model is never visible";

  ASSERT_EQ(run("model pull owner/slow").exit_code, 0);
  EXPECT_EQ(models().size(), 6u);
  const auto requests = asked("/cdn/slow/unet");
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_TRUE(requests[1]["headers"].contains("Range")) << "the rest only";
}

TEST_F(Pull, AFileThatIsNotWhatTheHubSaysStopsIt) {
  expect_refused("model pull owner/wrong", 1, "want SHA-256");
  EXPECT_FALSE(fs::exists(folder_ / "models/wrong"));
  expect_refused("model pull owner/model --sha256 " + std::string(64, '0'), 2, "--sha256");
  expect_refused("model pull owner", 2, "owner/name");
  expect_refused("model pull ../x", 2, "owner/name");
}

TEST_F(Pull, CivitaiLinksBringTheFileTheyMean) {
  const Outcome done = run("model pull '" + civitai("/api/download/models/7") + "' --json");
  ASSERT_EQ(done.exit_code, 0) << done.err;
  EXPECT_EQ(models(), std::vector<std::string>{"a_style.safetensors"});
  EXPECT_EQ(run("model pull '" + civitai("/api/download/models/7") + "'").exit_code, 0)
      << "it is there and right";
  setenv("CIVITAI_API_KEY", "sesame", 1);
  fs::remove(folder_ / "models/a_style.safetensors");
  expect_refused("model pull '" + civitai("/api/download/models/7?token=sesame") + "'", 1,
                 "it wants a key");
  setenv("CIVITAI_API_KEY", "civitai-key", 1);
}

TEST_F(Pull, SingleFilesComeByTheirUrl) {
  // Another name than the hub's, whose /owner/name are repositories.
  const std::string host = "https://localhost:" + std::to_string(server().main);
  const std::string url = host + "/plain/3000";
  const Outcome done = run("model pull '" + url + "?x=1'");
  ASSERT_EQ(done.exit_code, 0) << done.err;
  EXPECT_EQ(models(), std::vector<std::string>{"3000.safetensors"});
  expect_refused("model pull '" + url + "'", 2, "is there already");
  const std::string hash = file_sha256(folder_ / "models/3000.safetensors").value();
  EXPECT_EQ(run("model pull '" + url + "' --sha256 " + hash).exit_code, 0);
  expect_refused("model pull '" + host + "/plain/3001' --sha256 " + hash, 1,
                 "want SHA-256 " + hash);
  expect_refused("model pull '" + host + "/pickle'", 1, "pickle");
  expect_refused("model pull '" + url + "' --variant fp16", 2, "--variant");
  expect_refused("model pull https://user@host/x", 2, "user name");
  expect_refused("model pull 'https://127.0.0.2:" + std::to_string(server().forbidden) + "/x'", 1,
                 "loopback");
  expect_refused("model pull https://169.254.169.254/latest/meta-data", 1, "link-local");
  EXPECT_EQ(models(), std::vector<std::string>{"3000.safetensors"}) << "nothing is left behind";
}

TEST_F(Pull, LoraUrlsComeThroughTheCache) {
  const std::string draw = "generate cat --model '" LIMNER_SOURCE_DIR
                           "/tests/parity/fixtures/pipelines/micro-sdxl/model' --output '" +
                           (folder_ / "x.png").string() + "' --steps 1 --lora ";
  const std::string url = server().url("/plain/777");
  // It is no adapter, which its reader says: so it was fetched.
  EXPECT_EQ(run(draw + "'" + url + ":0.5'").exit_code, 1);
  EXPECT_EQ(run(draw + "'" + url + "'").exit_code, 1);
  EXPECT_EQ(asked("/plain/777").size(), 1u) << "the second time it is there";
  int files = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "cache/downloads")) {
    files += entry.path().extension() == ".safetensors";
  }
  EXPECT_EQ(files, 1);
  expect_refused(draw + "https://10.0.0.1/x.safetensors:0.5", 1, "a private address");
  expect_refused(draw + "'" + server().url("/zip") + "'", 1, "zip archive");
  expect_refused(draw + "'" + url + "#sha256=" + std::string(64, 'b') + ":1'", 1, "want SHA-256");
  expect_refused(draw + "'" + url + ":unet=x'", 2, "weight");
}

}  // namespace
}  // namespace limner
