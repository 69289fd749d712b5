// Whole pipelines against stored results of diffusers:
// fixtures/pipelines/<model>/<case>.{json,safetensors}, as tools/parity/pipeline_fixtures.py writes
// them. The program is run as a user runs it.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/weights/safetensors.h"

extern char** environ;

namespace limner::parity {
namespace {

namespace fs = std::filesystem;
using engine::weights::DType;
using engine::weights::SafetensorsFile;
using engine::weights::TensorView;

constexpr double kFloat32Tolerance = 1e-4;
// Stored pictures are float16: half a unit in the last place near 1 is 5e-4 / 2, on top of the
// above.
constexpr double kFloat16Tolerance = 4e-4;

float from_half(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -24)
                              : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

std::vector<float> values(const TensorView& view) {
  std::vector<float> answer;
  if (view.dtype == DType::kF32) {
    answer.resize(view.bytes.size() / sizeof(float));
    std::memcpy(answer.data(), view.bytes.data(), view.bytes.size());
  } else {
    std::vector<std::uint16_t> bits(view.bytes.size() / sizeof(std::uint16_t));
    std::memcpy(bits.data(), view.bytes.data(), view.bytes.size());
    std::transform(bits.begin(), bits.end(), std::back_inserter(answer), from_half);
  }
  return answer;
}

// max |got - want| / max |want|; infinite where a value is not finite.
double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0;
  double largest = 1e-12;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    difference = std::max(difference, std::abs(static_cast<double>(got[i]) - want[i]));
    largest = std::max(largest, std::abs(static_cast<double>(want[i])));
  }
  return difference / largest;
}

// Pictures are compared as they are shown.
std::vector<float> clamped(std::vector<float> picture) {
  for (float& value : picture)
    if (std::isfinite(value)) value = std::clamp(value, -1.0F, 1.0F);
  return picture;
}

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "limner-parity-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr)
      throw std::runtime_error("cannot make a folder in the temporary directory");
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Runs `limner` with these arguments; its output goes to `log`. The answer is its exit code, or -1.
int run_limner(std::vector<std::string> arguments, const fs::path& log) {
  arguments.insert(arguments.begin(), LIMNER_PROGRAM);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int failed =
      posix_spawn(&child, LIMNER_PROGRAM, &actions, nullptr, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  if (failed != 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

struct Case {
  fs::path stem;  // fixtures/pipelines/<model>/<case>
  fs::path model() const { return stem.parent_path() / "model"; }
  fs::path file(const char* extension) const { return stem.string() + extension; }
  std::vector<std::string> arguments() const {
    return nlohmann::json::parse(read_file(file(".json")))
        .at("arguments")
        .get<std::vector<std::string>>();
  }
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(LIMNER_SOURCE_DIR) /
                                                            "tests/parity/fixtures/pipelines")) {
    const fs::path& path = entry.path();
    if (path.extension() == ".json" &&
        fs::exists(fs::path(path).replace_extension(".safetensors")) &&
        path.parent_path().filename() != "model")
      cases.push_back({fs::path(path).replace_extension()});
  }
  std::sort(cases.begin(), cases.end(),
            [](const Case& a, const Case& b) { return a.stem < b.stem; });
  return cases;
}

// Draws with the case's model into `folder`: dump.safetensors, and a PNG per picture.
void draw(const Case& the_case, std::vector<std::string> arguments, const fs::path& folder) {
  arguments.insert(arguments.begin(), "generate");
  const std::vector<std::string> places = {"--model",        the_case.model(),
                                           "--dump-tensors", folder / "dump.safetensors",
                                           "--output",       folder / "{index}.png"};
  arguments.insert(arguments.end(), places.begin(), places.end());
  const int code = run_limner(arguments, folder / "log");
  ASSERT_EQ(code, 0) << fmt::format("limner {}\n{}", fmt::join(arguments, " "),
                                    read_file(folder / "log"));
}

SafetensorsFile open(const fs::path& path) {
  auto file = SafetensorsFile::open(path);
  if (!file) throw std::runtime_error(file.error().message);
  return std::move(*file);
}

class PipelineParity : public testing::TestWithParam<Case> {};

TEST_P(PipelineParity, EveryStageEqualsDiffusers) {
  const ScratchFolder folder;
  draw(GetParam(), GetParam().arguments(), folder.path());
  if (HasFatalFailure()) return;
  const SafetensorsFile got = open(folder.path() / "dump.safetensors");
  const SafetensorsFile want = open(GetParam().file(".safetensors"));
  ASSERT_FALSE(want.tensors().empty());
  for (const auto& [name, expected] : want.tensors()) {
    const auto found = got.tensors().find(name);
    if (found == got.tensors().end()) {
      ADD_FAILURE() << name << " is missing from the dump";
      continue;
    }
    EXPECT_EQ(found->second.dtype, DType::kF32) << name;
    EXPECT_EQ(found->second.shape, expected.shape) << name;
    if (found->second.shape != expected.shape || found->second.dtype != DType::kF32) continue;
    const bool picture = name == "image";
    const double error = picture ? relative_error(clamped(values(found->second)), values(expected))
                                 : relative_error(values(found->second), values(expected));
    EXPECT_LE(error, picture ? kFloat16Tolerance : kFloat32Tolerance) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Stored, PipelineParity, testing::ValuesIn(all_cases()),
                         [](const auto& parameter) {
                           const fs::path& stem = parameter.param.stem;
                           std::string name = stem.parent_path().filename().string() + "_" +
                                              stem.filename().string();
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// The options of `the_case` with `--name` set to `value`.
std::vector<std::string> replaced(std::vector<std::string> arguments, const std::string& name,
                                  const std::string& value) {
  const auto at = std::find(arguments.begin(), arguments.end(), name);
  if (at == arguments.end()) throw std::runtime_error("the case has no " + name);
  *(at + 1) = value;
  return arguments;
}

Case stored_case(const char* model, const char* name) {
  return {fs::path(LIMNER_SOURCE_DIR) / "tests/parity/fixtures/pipelines" / model / name};
}

struct Alone {
  const char* model;
  const char* name;
};

class SoloRun : public testing::TestWithParam<Alone> {};

// The cases draw several pictures with seeds seed, seed+1, ...
TEST_P(SoloRun, GivesThePictureOfTheBatch) {
  const Case the_case = stored_case(GetParam().model, GetParam().name);
  const ScratchFolder together;
  draw(the_case, the_case.arguments(), together.path());
  if (HasFatalFailure()) return;
  const SafetensorsFile batch = open(together.path() / "dump.safetensors");
  const std::vector<float> pictures = values(batch.tensors().at("image"));
  const auto images = batch.tensors().at("image").shape.at(0);
  ASSERT_GE(images, 2);
  const std::size_t size = pictures.size() / images;
  for (std::int64_t i = 0; i < images; ++i) {
    const ScratchFolder alone;
    auto arguments = replaced(the_case.arguments(), "--num-images", "1");
    const auto seed = std::find(arguments.begin(), arguments.end(), "--seed");
    ASSERT_NE(seed, arguments.end());
    *(seed + 1) = std::to_string(std::stoll(*(seed + 1)) + i);
    draw(the_case, arguments, alone.path());
    if (HasFatalFailure()) return;
    const SafetensorsFile solo = open(alone.path() / "dump.safetensors");
    const std::vector<float> row(pictures.begin() + i * size, pictures.begin() + (i + 1) * size);
    EXPECT_LE(relative_error(values(solo.tensors().at("image")), row), kFloat32Tolerance)
        << "picture " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Stored, SoloRun,
                         testing::Values(Alone{"micro-sd1", "euler_a_batch"},
                                         Alone{"micro-sdxl", "batch_negative"},
                                         Alone{"micro-sd1", "dpmpp_2m_sde"}),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

TEST(Determinism, TheSameSeedGivesTheSameBytes) {
  const Case the_case = stored_case("micro-sdxl", "euler_a_odd");
  const ScratchFolder first, second;
  draw(the_case, the_case.arguments(), first.path());
  draw(the_case, the_case.arguments(), second.path());
  if (HasFatalFailure()) return;
  for (const char* name : {"dump.safetensors", "0.png", "1.png"}) {
    ASSERT_FALSE(read_file(first.path() / name).empty()) << name;
    EXPECT_EQ(read_file(first.path() / name), read_file(second.path() / name)) << name;
  }
}

}  // namespace
}  // namespace limner::parity
