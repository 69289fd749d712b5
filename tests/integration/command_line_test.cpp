// The program as a person or a script runs it: exit codes, one clear sentence for what is wrong,
// files that are whole or not there, and the bundled model.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/sha256.h"
#include "engine/weights/safetensors.h"

namespace limner {
namespace {

namespace fs = std::filesystem;

const std::string kModel = LIMNER_SOURCE_DIR "/tests/parity/fixtures/pipelines/micro-sdxl/model";

class CommandLine : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("limner_command_line_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  struct Outcome {
    int exit_code = -1;  // 128 + signal when one ended it
    std::string out, err;
  };

  // `arguments` as a shell reads them.
  Outcome run(const std::string& arguments) {
    const fs::path out = folder_ / "stdout", err = folder_ / "stderr";
    const std::string line = "cd '" + folder_.string() +
                             "' && LIMNER_MODELS='" LIMNER_SOURCE_DIR "/models' '" LIMNER_PROGRAM
                             "' " +
                             arguments + " >'" + out.string() + "' 2>'" + err.string() + "'";
    const int status = std::system(line.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), text(out), text(err)};
  }

  static std::string text(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  // Refused: the exit code, nothing on stdout, one line on stderr that names what was wrong, and no
  // picture.
  void expect_refused(const std::string& arguments, int exit_code, const std::string& word) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, exit_code) << arguments << "\n" << outcome.err;
    EXPECT_EQ(outcome.out, "") << arguments;
    EXPECT_NE(outcome.err.find(word), std::string::npos) << arguments << "\n" << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_FALSE(fs::exists(folder_ / "x.png")) << arguments;
  }

  fs::path folder_;
};

TEST_F(CommandLine, BadInputGivesOneSentenceAndNoPicture) {
  const std::string draw = "generate cat --model '" + kModel + "' --output x.png ";
  expect_refused("generate cat --model nowhere --output x.png", 1, "no such model");
  expect_refused(draw + "--width 0", 2, "width");
  expect_refused(draw + "--width 7", 2, "width");
  expect_refused(draw + "--width 13", 2, "nearest are 8 and 16");
  expect_refused(draw + "--height 1000000000", 2, "height");
  expect_refused(draw + "--steps 0", 2, "steps");
  expect_refused(draw + "--steps 1000000", 2, "steps");
  expect_refused(draw + "--sampler eular", 2, "did you mean euler");
  expect_refused(draw + "--schedule karas", 2, "did you mean karras");
  expect_refused(draw + "--sampler ddim --schedule karras", 2, "ddim");
  expect_refused(draw + "--seed -1", 2, "seed");
  expect_refused(draw + "--seed 99999999999999999999", 2, "seed");
  expect_refused(draw + "--guidance-scale nan", 2, "guidance_scale");
  expect_refused(draw + "--dtype float8", 2, "float8");
  expect_refused(draw + "--device tpu", 2, "tpu");
  expect_refused(draw + "--variant fp61", 2, "fp61");
  expect_refused(draw + "--format bmp", 2, "bmp");
  expect_refused(draw + "--weighting loud", 2, "--weighting");
  expect_refused(draw + "--negative-prompt '(dark:1.2.3)'", 2, "column 7");
  expect_refused("generate cat --output x.png --width 16384 --height 16384", 1, "would fit");
  expect_refused("generate cat --model '" + kModel + "' --output nowhere/x.png", 1, "nowhere");
  expect_refused("generate cat --model '" + kModel + "' --steps 1 --output /dev/full", 1,
                 "No space left");
  expect_refused("generate \"$(printf 'a\\377b')\" --model '" + kModel + "' --output x.png", 2,
                 "offset 1");
  std::ofstream(folder_ / "long.txt") << std::string(1'000'000, 'a');
  expect_refused("generate - --model '" + kModel + "' --output x.png <long.txt", 2, "prompt");
}

TEST_F(CommandLine, BrokenModelsAreNamedNotDrawnWith) {
  const auto broken = [&](const std::string& name) {
    fs::copy(kModel, folder_ / name, fs::copy_options::recursive);
    return folder_ / name;
  };
  const auto refuse = [&](const fs::path& model, const std::string& word) {
    expect_refused("generate cat --model '" + model.string() + "' --output x.png", 1, word);
  };
  fs::path model = broken("truncated");
  fs::resize_file(model / "unet/diffusion_pytorch_model.safetensors", 5000);
  refuse(model, "unet/diffusion_pytorch_model.safetensors");

  model = broken("config");
  nlohmann::json config = nlohmann::json::parse(text(model / "unet/config.json"));
  config["norm_num_groups"] = -3;
  std::ofstream(model / "unet/config.json") << config;
  refuse(model, "norm_num_groups");

  model = broken("unknown");
  config["norm_num_groups"] = 1;
  config["dual_cross_attention"] = true;
  std::ofstream(model / "unet/config.json") << config;
  refuse(model, "dual_cross_attention");

  model = broken("pickle");
  fs::rename(model / "vae/diffusion_pytorch_model.safetensors",
             model / "vae/diffusion_pytorch_model.bin");
  refuse(model, "diffusion_pytorch_model.bin");
}

TEST_F(CommandLine, JsonSpeaksToPrograms) {
  const Outcome good = run("generate cat --model '" + kModel +
                           "' --steps 2 --seed 5 --num-images 2 --output 'p-{seed}.png' --json");
  ASSERT_EQ(good.exit_code, 0) << good.err;
  const auto body = nlohmann::json::parse(good.out);
  EXPECT_EQ(body["seeds"], (nlohmann::json{5, 6}));
  EXPECT_EQ(body["files"], (nlohmann::json{"p-5.png", "p-6.png"}));
  EXPECT_EQ(body["hash"].get<std::string>().size(), 64u);
  EXPECT_TRUE(body["timings"].contains("denoise_ms"));
  EXPECT_TRUE(fs::exists(folder_ / "p-5.png"));

  const Outcome bad = run("generate cat --model '" + kModel + "' --steps 0 --json");
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_EQ(nlohmann::json::parse(bad.err)["error"]["code"], "invalid_argument");
}

TEST_F(CommandLine, CtrlCLeavesNoHalfFile) {
  const pid_t child = fork();
  if (child == 0) {
    chdir(folder_.c_str());
    freopen("/dev/null", "w", stderr);
    execl(LIMNER_PROGRAM, "limner", "generate", "cat", "--model", kModel.c_str(), "--steps", "1000",
          "--width", "128", "--height", "128", "--output", "x.png", nullptr);
    _exit(127);
  }
  std::this_thread::sleep_for(std::chrono::seconds(2));
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_TRUE(fs::is_empty(folder_)) << "something was left behind";
}

TEST_F(CommandLine, EveryCommandHelpsWithAnExample) {
  for (const std::string command :
       {"", "generate", "model", "model list", "model inspect", "bench", "doctor", "version"}) {
    const Outcome outcome = run(command + " --help");
    EXPECT_EQ(outcome.exit_code, 0) << command;
    EXPECT_NE(outcome.out.find("Example:\n  limner " + command.substr(0, command.find(' '))),
              std::string::npos)
        << command;
  }
}

TEST_F(CommandLine, InspectAndBenchAnswer) {
  const auto inspected = nlohmann::json::parse(run("model inspect miniature --json").out);
  EXPECT_EQ(inspected["family"], "sdxl");
  EXPECT_TRUE(inspected["problems"].empty());
  const auto bench =
      nlohmann::json::parse(run("bench --model '" + kModel + "' --steps 2 --json").out);
  EXPECT_GT(bench["step_ms"]["min"].get<double>(), 0);
  EXPECT_NE(run("model list").out.find("miniature"), std::string::npos);
}

// What a colour's pixels look like: how many there are and where their middle lies.
struct Patch {
  int pixels = 0;
  double row = 0, column = 0;
};

// `wanted` in 0..1 per channel; a pixel counts when no channel is further off than a quarter.
Patch find(const std::vector<float>& image, std::int64_t side, std::array<float, 3> wanted) {
  Patch patch;
  for (std::int64_t y = 0; y < side; ++y) {
    for (std::int64_t x = 0; x < side; ++x) {
      bool same = true;
      for (std::int64_t c = 0; c < 3; ++c) {
        const float value =
            image[static_cast<std::size_t>((c * side + y) * side + x)] * 0.5F + 0.5F;
        same = same && std::abs(value - wanted[static_cast<std::size_t>(c)]) < 0.25F;
      }
      if (!same) continue;
      ++patch.pixels;
      patch.row += static_cast<double>(y);
      patch.column += static_cast<double>(x);
    }
  }
  patch.row /= std::max(patch.pixels, 1);
  patch.column /= std::max(patch.pixels, 1);
  return patch;
}

TEST_F(CommandLine, TheBundledModelDrawsWhatTheReadmeAsksFor) {
  const Outcome drawn = run(
      "generate 'a red circle above a blue square on a white background' --seed 1 --output x.png "
      "--dump-tensors dump.safetensors");
  ASSERT_EQ(drawn.exit_code, 0) << drawn.err;
  const auto dump =
      engine::weights::SafetensorsFile::open(folder_ / "dump.safetensors").value_or_throw();
  const auto& tensor = dump.tensors().at("image");
  const std::int64_t side = tensor.shape[3];
  std::vector<float> image(tensor.bytes.size() / sizeof(float));
  std::memcpy(image.data(), tensor.bytes.data(), tensor.bytes.size());
  const Patch red = find(image, side, {0.88F, 0.19F, 0.19F});
  const Patch blue = find(image, side, {0.11F, 0.49F, 0.84F});
  const Patch white = find(image, side, {1.0F, 1.0F, 1.0F});
  const int all = static_cast<int>(side * side);
  EXPECT_GT(red.pixels, all / 40);
  EXPECT_GT(blue.pixels, all / 40);
  EXPECT_GT(white.pixels, all / 2);
  EXPECT_LT(red.row + static_cast<double>(side) / 8, blue.row);
  EXPECT_NEAR(red.column, blue.column, static_cast<double>(side) / 6);
}

// --- adapters ---

class AdapterCommands : public CommandLine {
 protected:
  void SetUp() override {
    CommandLine::SetUp();
    fs::create_directories(folder_ / "loras");
    fs::copy_file(LIMNER_SOURCE_DIR
                  "/tests/parity/fixtures/adapters/micro-sdxl.adapter.safetensors",
                  adapter_);
  }
  // The first twelve digits of the SHA-256 over what follows the header: A1111's rule.
  std::string short_hash() const {
    const std::string bytes = text(adapter_);
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    const std::string data = bytes.substr(8 + length);
    return sha256_hex(std::as_bytes(std::span(data))).substr(0, 12);
  }
  std::vector<float> tensor(const std::string& file, const std::string& name) const {
    const auto dump = engine::weights::SafetensorsFile::open(folder_ / file).value_or_throw();
    const auto bytes = dump.tensors().at(name).bytes;
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  const fs::path adapter_ = fs::temp_directory_path() /
                            ("limner_command_line_" + std::to_string(getpid())) / "loras" /
                            "style.safetensors";
  const std::string draw_ = "generate --model '" + kModel +
                            "' --loras loras --width 32 --height 32 --steps 2 --seed 5 "
                            "--dtype float32 ";
};

TEST_F(AdapterCommands, InspectTellsWhatAFileIs) {
  const auto inspected = run("lora inspect style --loras loras --json");
  ASSERT_EQ(inspected.exit_code, 0) << inspected.err;
  const auto about = nlohmann::json::parse(inspected.out);
  EXPECT_EQ(about["name"], "style");
  const std::string bytes = text(adapter_);
  EXPECT_EQ(about["sha256"], sha256_hex(std::as_bytes(std::span(bytes))));
  EXPECT_EQ(about["short_hash"], short_hash());
  EXPECT_TRUE(about["kinds"].contains("LoRA"));
  EXPECT_TRUE(about["components"].contains("text_encoder_2"));
  EXPECT_EQ(about["family"], "sdxl");
  EXPECT_FALSE(about["ranks"].empty());
  EXPECT_TRUE(about["metadata"].contains("lora_adapter_metadata")) << about["metadata"];
  const auto said = run("lora inspect loras/style.safetensors");
  ASSERT_EQ(said.exit_code, 0) << said.err;
  for (const std::string& word : {std::string("LoRA"), std::string("sdxl"), short_hash()}) {
    EXPECT_NE(said.out.find(word), std::string::npos) << word << "\n" << said.out;
  }
}

TEST_F(AdapterCommands, InspectShowsTriggerWordsAndWhatItWasTrainedOn) {
  const auto moon = run("lora inspect '" LIMNER_SOURCE_DIR "/loras/moon.safetensors' --json");
  ASSERT_EQ(moon.exit_code, 0) << moon.err;
  EXPECT_EQ(nlohmann::json::parse(moon.out)["trigger"], "moon");

  using engine::weights::DType;
  const float ones[6] = {1, 1, 1, 1, 1, 1};
  const auto bytes = std::as_bytes(std::span(ones));
  engine::weights::write_safetensors(
      folder_ / "tagged.safetensors",
      {{"lora_unet_x.lora_down.weight", DType::kF32, {2, 3}, bytes},
       {"lora_unet_x.lora_up.weight", DType::kF32, {3, 2}, bytes}},
      {{"ss_tag_frequency", R"({"10_x": {"cat": 3, "night": 7}, "5_y": {"cat": 6}})"},
       {"ss_network_dim", "2"}})
      .value_or_throw();
  const auto tagged = run("lora inspect tagged.safetensors --json");
  ASSERT_EQ(tagged.exit_code, 0) << tagged.err;
  const auto about = nlohmann::json::parse(tagged.out);
  EXPECT_EQ(about["tags"][0], (nlohmann::json{{"tag", "cat"}, {"count", 9}}));
  EXPECT_EQ(about["tags"][1], (nlohmann::json{{"tag", "night"}, {"count", 7}}));
  EXPECT_EQ(about["ranks"], (nlohmann::json{{"2", 1}}));
  EXPECT_EQ(about["metadata"]["ss_network_dim"], "2");
  EXPECT_TRUE(about["family"].is_null());
}

TEST_F(AdapterCommands, ListNamesWhatTheFoldersHold) {
  const auto listed = run("lora list --loras loras --json");
  ASSERT_EQ(listed.exit_code, 0) << listed.err;
  const auto list = nlohmann::json::parse(listed.out)["loras"];
  const auto style = std::ranges::find_if(list, [](const auto& e) { return e["name"] == "style"; });
  ASSERT_NE(style, list.end()) << listed.out;
  EXPECT_EQ((*style)["bytes"], fs::file_size(adapter_));
  EXPECT_NE(run("lora list --loras loras").out.find("style "), std::string::npos);
  expect_refused("lora inspect stile --loras loras", 1, "style");
  expect_refused("lora inspect '" + kModel + "/unet/config.json'", 1, "config.json");
}

TEST_F(AdapterCommands, EveryLineOfAPromptsFileIsDrawnAsItWouldBeAlone) {
  const std::vector<std::string> prompts = {"a red circle", "a red circle <lora:style:1>",
                                            "a (blue:1.3) square <lora:style:-0.5>",
                                            "a star AND a moon <lora:style:0.3>"};
  std::string lines;
  for (const std::string& prompt : prompts) lines += prompt + "\n\n";
  std::ofstream(folder_ / "prompts.txt") << lines;
  const auto together = run(draw_ +
                            "--prompts-file prompts.txt --batch-size 3 --output p.png "
                            "--dump-tensors all.safetensors --json");
  ASSERT_EQ(together.exit_code, 0) << together.err;
  const auto said = nlohmann::json::parse(together.out);
  ASSERT_EQ(said["files"].size(), prompts.size());
  EXPECT_EQ(said["prompts"], nlohmann::json(prompts));
  const auto all = tensor("all.safetensors", "latents.final");
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(said["seeds"][i], 5);
    const std::string file = "p-" + std::to_string(i) + ".png";
    EXPECT_EQ(said["files"][i], file);
    const std::string picture = text(folder_ / file);
    EXPECT_NE(picture.find(prompts[i]), std::string::npos);
    const bool hashed =
        picture.find("Lora hashes: \"style: " + short_hash() + "\"") != std::string::npos;
    EXPECT_EQ(hashed, i > 0) << prompts[i];
    const auto alone =
        run(draw_ + "'" + prompts[i] + "' --output alone.png --dump-tensors alone.safetensors");
    ASSERT_EQ(alone.exit_code, 0) << alone.err;
    const auto want = tensor("alone.safetensors", "latents.final");
    float largest = 0, difference = 0;
    for (std::size_t k = 0; k < want.size(); ++k) {
      largest = std::max(largest, std::abs(want[k]));
      difference = std::max(difference, std::abs(want[k] - all.at(i * want.size() + k)));
    }
    EXPECT_LE(difference, 1e-4 * largest) << prompts[i];
  }
}

TEST_F(AdapterCommands, APromptsFileThatCannotBeDrawnIsRefusedBeforeAnythingIs) {
  const std::string draw = draw_ + "--output x.png ";
  std::ofstream(folder_ / "bad.txt") << "a cat\n\na dog [a:b:c:d\n";
  std::ofstream(folder_ / "empty.txt") << "\n";
  expect_refused(draw, 2, "--prompts-file");
  expect_refused(draw + "'a cat' --prompts-file bad.txt", 2, "--prompts-file");
  expect_refused(draw + "--prompts-file empty.txt", 2, "no prompt");
  expect_refused(draw + "--prompts-file none.txt", 1, "none.txt");
  std::ofstream(folder_ / "tag.txt") << "a cat\na dog <lora:style:much>\n";
  expect_refused(draw + "--prompts-file tag.txt", 2, "line 2");
}

}  // namespace
}  // namespace limner
