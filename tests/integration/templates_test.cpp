// `limner template` and `--lora URL` from the web to the picture, against a local server.
#include <nlohmann/json.hpp>

#include "fault/https_server.h"
#include "integration/program.h"

namespace limner {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kAdapter =
    LIMNER_SOURCE_DIR "/tests/parity/fixtures/adapters/micro-sd1.adapter.safetensors";

HttpsServer& server() {
  static HttpsServer one;
  return one;
}

class TemplateTools : public Program {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(server().ready) << "no python3 or openssl here?";
    setenv("LIMNER_EGRESS_ALLOW", "127.0.0.1", 1);
    setenv("SSL_CERT_FILE", server().authority().c_str(), 1);
    fs::copy_file(kAdapter, server().files() / "style.safetensors");
    const std::string convert = "'" LIMNER_PROGRAM "' model convert '" + micro("micro-sd1") +
                                "' '" + (server().files() / "base.safetensors").string() +
                                "' >/dev/null";
    ASSERT_EQ(std::system(convert.c_str()), 0);
  }
  void SetUp() override {
    Program::SetUp();
    setenv("LIMNER_MODELS", (folder_ / "models").c_str(), 1);
    setenv("LIMNER_CACHE", (folder_ / "cache").c_str(), 1);
    setenv("LIMNER_TEMPLATES", (folder_ / "templates.json").c_str(), 1);
  }

  static json checkpoint(const std::string& file = "base.safetensors") {
    return {{"name", "Base"},
            {"url", server().url("/files/" + file)},
            {"filename", "base.safetensors"},
            {"diffusers_dir", "base-df"}};
  }

  // "plain" is the checkpoint alone, "styled" has an adapter, "broken" an adapter nobody serves.
  void write_templates(double scale, bool with_broken = false) const {
    json styled = {{"name", "Styled"},
                   {"checkpoint", checkpoint()},
                   {"loras",
                    {{{"name", "Style"},
                      {"url", server().url("/files/style.safetensors")},
                      {"filename", "style.safetensors"},
                      {"scale", scale}}}},
                   {"defaults", {{"steps", 2}, {"width", 64}, {"height", 64}}}};
    json all = {{"plain", {{"name", "Plain"}, {"checkpoint", checkpoint()}}}, {"styled", styled}};
    if (with_broken) {
      styled["loras"][0]["url"] = server().url("/files/missing.safetensors");
      styled["loras"][0]["filename"] = "missing.safetensors";
      all["broken"] = styled;
    }
    std::ofstream(folder_ / "templates.json")
        << json{{"templates", all}, {"default_template", "styled"}}.dump(2);
  }

  // The state of each model in the summary.
  std::map<std::string, std::string> build(const std::string& options = "", int exit_code = 0) {
    const Outcome outcome =
        run("template build --out models --dtype float32 --variant '' --json " + options);
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
    std::map<std::string, std::string> states;
    const json body = json::parse(outcome.out);
    for (const json& row : body["models"]) {
      states[row["model"]] = row["state"];
      if (row["state"] == "failed") problem_ = row["problem"];
    }
    return states;
  }

  using States = std::map<std::string, std::string>;
  std::string problem_;
};

TEST_F(TemplateTools, ListAndShowTellWhatTheFileSays) {
  write_templates(0.8);
  const std::string list = done("template list");
  EXPECT_NE(list.find("styled"), std::string::npos);
  EXPECT_NE(list.find("(default)"), std::string::npos);
  const json shown = json::parse(done("template show --json"));
  EXPECT_EQ(shown["key"], "styled");
  EXPECT_EQ(shown["loras"][0]["scale"], 0.8);
  EXPECT_EQ(shown["model_dir"], "styled-merged-df");
  expect_refused("template show styed", 1, "did you mean styled?");
  std::ofstream(folder_ / "templates.json") << "{\n\"templates\": {\n\"a\": {}\n}\n}\n";
  expect_refused("template list", 2, "line 3");
}

TEST_F(TemplateTools, BuildMakesEachModelOnceAndOnlyWhatChanged) {
  write_templates(0.8);
  EXPECT_EQ(build(), (States{{"base-df", "built"}, {"styled-merged-df", "built"}}));
  done("model verify models/base-df");
  done("model verify models/styled-merged-df");
  EXPECT_EQ(build(), (States{{"base-df", "unchanged"}, {"styled-merged-df", "unchanged"}}));
  write_templates(0.4);
  EXPECT_EQ(build(), (States{{"base-df", "unchanged"}, {"styled-merged-df", "built"}}));
  EXPECT_EQ(build("--volume volume"),
            (States{{"base-df", "copied"}, {"styled-merged-df", "copied"}}));
  EXPECT_TRUE(fs::exists(folder_ / "volume/styled-merged-df/model_index.json"));
}

TEST_F(TemplateTools, AFileThatDoesNotComeFailsItsOwnModelOnly) {
  write_templates(0.8, /*with_broken=*/true);
  EXPECT_EQ(build("", 1), (States{{"base-df", "built"},
                                  {"broken-merged-df", "failed"},
                                  {"styled-merged-df", "built"}}));
  EXPECT_NE(problem_.find("404"), std::string::npos) << problem_;
  EXPECT_FALSE(fs::exists(folder_ / "models/broken-merged-df"));
}

TEST_F(TemplateTools, ATemplateDrawsTheSameMergedAndAtRunTime) {
  write_templates(0.8);
  const auto draw = [&] {
    return done(
        "generate cat --template styled --seed 5 --threads 1 --dtype float32 --output "
        "x.png --dump-tensors x.safetensors --json");
  };
  // Not built, but its files are there: drawn with the adapter at run time, and said so.
  fs::create_directories(folder_ / "models/downloads");
  fs::copy_file(server().files() / "base.safetensors", folder_ / "models/base.safetensors");
  fs::copy_file(kAdapter, folder_ / "models/downloads/style.safetensors");
  draw();
  const auto image = [&] {
    const auto dump = engine::weights::SafetensorsFile::open(folder_ / "x.safetensors").value();
    const auto& tensor = dump.tensors().at("latents.final");
    std::vector<float> values(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    fs::remove(folder_ / "x.safetensors");
    fs::remove(folder_ / "x.png");
    return values;
  };
  const std::vector<float> at_run_time = image();
  build();
  const json drawn = json::parse(draw());
  EXPECT_NE(drawn["model"].get<std::string>().find("styled-merged-df"), std::string::npos);
  EXPECT_LT(difference(image(), at_run_time), 1e-3);
  expect_refused("generate cat --template styled --model plain --output x.png", 2, "--template");
  expect_refused("generate cat --template nobody --output x.png", 1, "nobody");
}

TEST_F(TemplateTools, AnAdapterFromAUrlDrawsWhatItsFileDraws) {
  const std::string model = "'" + micro("micro-sd1") + "' --lora ";
  const std::vector<float> from_file = latents(model + kAdapter + ":0.8");
  const std::string url = server().url("/files/style.safetensors");
  EXPECT_EQ(latents(model + url + ":0.8"), from_file);
  EXPECT_EQ(files_below(folder_ / "cache/downloads").size(), 3u);  // the file, its lock, the index
  EXPECT_GT(difference(latents("'" + micro("micro-sd1") + "'"), from_file), 1e-2);
}

}  // namespace
}  // namespace limner
