// Runs `limner` as a person does, in a folder that goes away with the test, and reads what it left.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/weights/safetensors.h"

namespace limner {

class Program : public testing::Test {
 protected:
  struct Outcome {
    int exit_code = -1;  // 128 + signal when one ended it
    std::string out, err;
  };

  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "limner-program-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // `arguments` as a shell reads them, run in folder_.
  Outcome run(const std::string& arguments) const {
    const std::filesystem::path out = folder_ / "stdout", err = folder_ / "stderr";
    const std::string line = "cd '" + folder_.string() + "' && '" LIMNER_PROGRAM "' " + arguments +
                             " >'" + out.string() + "' 2>'" + err.string() + "'";
    const int status = std::system(line.c_str());
    const Outcome outcome = {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
                             content(out), content(err)};
    std::filesystem::remove(out);
    std::filesystem::remove(err);
    return outcome;
  }

  // As run, for what must go well.
  std::string done(const std::string& arguments) const {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << arguments << "\n" << outcome.err;
    return outcome.out;
  }

  // Refused: the exit code, nothing on stdout, and one line on stderr that names what was wrong.
  void expect_refused(const std::string& arguments, int exit_code, const std::string& words) const {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.exit_code, exit_code) << arguments << "\n" << outcome.err;
    EXPECT_EQ(outcome.out, "") << arguments;
    EXPECT_NE(outcome.err.find(words), std::string::npos) << arguments << "\n" << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  }

  // What a model draws: the final latents of a short run, which no encoder has rounded.
  std::vector<float> latents(const std::string& model_and_options) const {
    done(
        "generate 'a red circle' --steps 2 --seed 3 --width 64 --height 64 --threads 1 --output "
        "drawn.png --dump-tensors drawn.safetensors --model " +
        model_and_options);
    std::vector<float> values;
    if (const auto dump = engine::weights::SafetensorsFile::open(folder_ / "drawn.safetensors");
        dump.ok()) {
      const auto& tensor = dump->tensors().at("latents.final");
      values.resize(tensor.bytes.size() / sizeof(float));
      std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    }
    EXPECT_FALSE(values.empty()) << model_and_options;
    std::filesystem::remove(folder_ / "drawn.safetensors");
    std::filesystem::remove(folder_ / "drawn.png");
    return values;
  }

  // max |a - b| / max |b|; infinite where sizes differ or a value is not finite.
  static double difference(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size() || a.empty()) return INFINITY;
    double most = 0, largest = 1e-12;
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return INFINITY;
      most = std::max(most, std::abs(static_cast<double>(a[i]) - b[i]));
      largest = std::max(largest, std::abs(static_cast<double>(b[i])));
    }
    return most / largest;
  }

  static std::string content(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  // Relative paths of the files below a folder.
  static std::set<std::string> files_below(const std::filesystem::path& folder) {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (entry.is_regular_file())
        found.insert(entry.path().lexically_relative(folder).generic_string());
    }
    return found;
  }

  // A small model of the parity fixtures: micro-sd1, micro-sd2, micro-sdxl.
  static const std::string& micro(const std::string& name) {
    static std::map<std::string, std::string> paths;
    return paths
        .try_emplace(name, LIMNER_SOURCE_DIR "/tests/parity/fixtures/pipelines/" + name + "/model")
        .first->second;
  }

  std::filesystem::path folder_;
};

}  // namespace limner
