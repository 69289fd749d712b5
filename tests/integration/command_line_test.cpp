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
#include <string>
#include <thread>
#include <vector>

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

}  // namespace
}  // namespace limner
