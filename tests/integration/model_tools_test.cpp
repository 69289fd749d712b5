// `limner model convert, merge, verify, inspect` on the small models of the parity fixtures.
#include <fcntl.h>
#include <signal.h>

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/file_hash.h"
#include "integration/program.h"

namespace limner {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using engine::weights::DType;
using engine::weights::SafetensorsFile;
using engine::weights::TensorToWrite;
using nlohmann::json;

const std::string kAdapter =
    LIMNER_SOURCE_DIR "/tests/parity/fixtures/adapters/micro-sd1.adapter.safetensors";

class ModelTools : public Program {
 protected:
  // The model as a single file of other people's making: tensors renamed ("" leaves one out) and
  // added, nothing of ours in the header.
  fs::path foreign(const std::string& model, const std::string& name,
                   const std::function<std::string(std::string)>& rename,
                   std::vector<TensorToWrite> tensors = {}) const {
    const fs::path ours = folder_ / "ours.safetensors";
    done("model convert '" + micro(model) + "' " + ours.string());
    const auto file = SafetensorsFile::open(ours);
    for (const auto& [tensor, view] : file->tensors()) {
      const std::string other = rename(tensor);
      if (!other.empty()) tensors.push_back({other, view.dtype, view.shape, view.bytes});
    }
    const fs::path out = folder_ / name;
    EXPECT_TRUE(write_safetensors(out, std::move(tensors)).ok());
    fs::remove(ours);
    return out;
  }

  static std::string same(std::string name) { return name; }

  // SDXL's second tower where the refiner has its only one, and a UNet that is told five numbers
  // beside the pooled text instead of six.
  fs::path refiner_model(const std::string& name) const {
    const std::string told = "model.diffusion_model.label_emb.0.0.weight";
    constexpr std::int64_t kPooled = 12, kPerNumber = 4, kWidth = 32;
    static const std::vector<std::byte> zeros(kWidth * (kPooled + 5 * kPerNumber) * 4);
    const auto rename = [&](std::string tensor) -> std::string {
      const std::string second = "conditioner.embedders.1.";
      if (tensor.starts_with("conditioner.embedders.0.") || tensor == told) return "";
      return tensor.starts_with(second) ? "conditioner.embedders.0." + tensor.substr(second.size())
                                        : tensor;
    };
    return foreign("micro-sdxl", name, rename,
                   {{told, DType::kF32, {kWidth, kPooled + 5 * kPerNumber}, zeros}});
  }

  fs::path inpaint_model() const {
    const std::string first = "model.diffusion_model.input_blocks.0.0.weight";
    static const std::vector<std::byte> zeros(8 * 9 * 3 * 3 * 4);
    return foreign("micro-sd1", "masks.safetensors",
                   [&](std::string name) { return name == first ? "" : name; },
                   {{first, DType::kF32, {8, 9, 3, 3}, zeros}});
  }

  json manifest(const std::string& model) const {
    return json::parse(content(folder_ / model / "limner-manifest.json"));
  }
};

TEST_F(ModelTools, ThereAndBackIsBitForBitTheSameFileAndPicture) {
  for (const std::string name : {"micro-sd1", "micro-sd2", "micro-sdxl"}) {
    done("model convert '" + micro(name) + "' one.safetensors");
    done("model convert one.safetensors folder");
    done("model convert folder two.safetensors");
    EXPECT_TRUE(content(folder_ / "one.safetensors") == content(folder_ / "two.safetensors"))
        << name;
    std::set<std::string> wanted = files_below(micro(name));
    wanted.insert("limner-manifest.json");
    EXPECT_EQ(files_below(folder_ / "folder"), wanted);
    const std::vector<float> drawn = latents("'" + micro(name) + "'");
    EXPECT_EQ(latents("one.safetensors"), drawn) << name;
    EXPECT_EQ(latents("folder"), drawn) << name;
    fs::remove_all(folder_ / "folder");
    fs::remove(folder_ / "one.safetensors");
    fs::remove(folder_ / "two.safetensors");
  }
}

TEST_F(ModelTools, HalvesHaveTheFileNamesOfDiffusers) {
  done("model convert '" + micro("micro-sdxl") + "' half --dtype float16 --variant fp16");
  std::set<std::string> weights;
  for (const std::string& file : files_below(folder_ / "half")) {
    if (file.ends_with(".safetensors")) weights.insert(file);
  }
  EXPECT_EQ(weights, (std::set<std::string>{"text_encoder/model.fp16.safetensors",
                                            "text_encoder_2/model.fp16.safetensors",
                                            "unet/diffusion_pytorch_model.fp16.safetensors",
                                            "vae/diffusion_pytorch_model.fp16.safetensors"}));
  for (const std::string& file : weights) {
    const auto opened = SafetensorsFile::open(folder_ / "half" / file);
    ASSERT_TRUE(opened.ok()) << file;
    for (const auto& [tensor, view] : opened->tensors()) {
      EXPECT_TRUE(view.dtype == DType::kF16 || view.dtype == DType::kI64) << file << " " << tensor;
    }
  }
  EXPECT_EQ(manifest("half")["variant"], "fp16");
  latents("half --variant fp16 --dtype float32");
}

TEST_F(ModelTools, RefusesToWriteOverOrBetweenWhatItShouldNot) {
  done("model convert '" + micro("micro-sd1") + "' one.safetensors");
  expect_refused("model convert '" + micro("micro-sd1") + "' one.safetensors", 2,
                 "is there already");
  expect_refused("model convert one.safetensors two.safetensors", 2, "both ends are single files");
  expect_refused("model convert '" + micro("micro-sd1") + "' two.safetensors --variant fp16", 2,
                 "--variant");
  expect_refused("model convert nothing out", 1, "no such model");
  expect_refused("model convert one.safetensors nowhere/out", 1, "no such folder");
}

TEST_F(ModelTools, AMergedAdapterDrawsWhatItDrawsAtRunTime) {
  const std::string base = "'" + micro("micro-sd1") + "'";
  done("model merge " + base + " merged --dtype float32 --lora " + kAdapter + ":0.8");
  const std::vector<float> plain = latents(base + " --dtype float32");
  const std::vector<float> at_run_time =
      latents(base + " --dtype float32 --lora " + kAdapter + ":0.8");
  EXPECT_GT(difference(at_run_time, plain), 1e-2) << "the adapter does nothing here";
  EXPECT_LT(difference(latents("merged --dtype float32"), at_run_time), 1e-3);

  const json about = manifest("merged");
  EXPECT_EQ(about["kind"], "merge");
  ASSERT_EQ(about["inputs"].size(), 2u);
  EXPECT_EQ(about["inputs"][0]["role"], "model");
  EXPECT_EQ(about["inputs"][1]["role"], "lora");
  EXPECT_EQ(about["inputs"][1]["name"], "micro-sd1.adapter.safetensors");
  EXPECT_EQ(about["inputs"][1]["sha256"], file_sha256(kAdapter).value());
  EXPECT_EQ(about["inputs"][1]["scale"], 0.8);
  for (const auto& [file, entry] : about["files"].items())
    EXPECT_EQ(entry["sha256"], file_sha256(folder_ / "merged" / file).value()) << file;
}

TEST_F(ModelTools, BlendsAndDifferencesAreWhatTheirFormulasSay) {
  const std::string base = "'" + micro("micro-sd1") + "'";
  done("model merge " + base + " full --dtype float32 --lora " + kAdapter + ":1");
  done("model merge " + base + " half --dtype float32 --lora " + kAdapter + ":0.5");
  // base/2 + full/2 is base with half of the adapter; so is base + 0.5 (full - base).
  done("model merge sum --dtype float32 --blend '" + micro("micro-sd1") + "=0.5' full=0.5");
  done("model merge difference --dtype float32 --add-difference " + base + " full " + base +
       " --alpha 0.5");
  const auto unet = [&](const std::string& model) {
    return SafetensorsFile::open(folder_ / model / "unet/diffusion_pytorch_model.safetensors")
        .value();
  };
  const auto values = [](const engine::weights::TensorView& view) {
    std::vector<float> list(view.bytes.size() / sizeof(float));
    std::memcpy(list.data(), view.bytes.data(), view.bytes.size());
    return list;
  };
  const SafetensorsFile wanted = unet("half");
  for (const std::string model : {"sum", "difference"}) {
    const SafetensorsFile got = unet(model);
    ASSERT_EQ(got.tensors().size(), wanted.tensors().size());
    for (const auto& [name, view] : wanted.tensors())
      EXPECT_LT(difference(values(got.tensors().at(name)), values(view)), 1e-5) << model << name;
  }
  EXPECT_EQ(manifest("sum")["kind"], "blend");
  EXPECT_EQ(manifest("sum")["inputs"][1]["scale"], 0.5);
  EXPECT_EQ(manifest("difference")["kind"], "add-difference");
  EXPECT_EQ(manifest("difference")["inputs"][2]["scale"], -0.5);
  expect_refused("model merge x --blend " + base + "=0.5", 2, "two models");
  expect_refused(
      "model merge x --blend '" + micro("micro-sd1") + "=0.5' '" + micro("micro-sd2") + "=0.5'", 1,
      "micro-sd2");
}

TEST_F(ModelTools, VerifyNamesTheFileAndTheTensorThatAreWrong) {
  done("model convert '" + micro("micro-sd1") + "' m");
  EXPECT_NE(done("model verify m").find("tensors finite"), std::string::npos);
  const fs::path weights = folder_ / "m/vae/diffusion_pytorch_model.safetensors";
  std::string bytes = content(weights);
  bytes[bytes.size() - 2] = static_cast<char>(bytes[bytes.size() - 2] ^ 1);
  std::ofstream(weights, std::ios::binary) << bytes;
  Outcome outcome = run("model verify m");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.out.find("vae/diffusion_pytorch_model.safetensors"), std::string::npos);

  // The last number of the file becomes NaN.
  const auto file = SafetensorsFile::open(weights);
  const auto last = std::max_element(file->tensors().begin(), file->tensors().end(),
                                     [](const auto& one, const auto& other) {
                                       return one.second.bytes.data() < other.second.bytes.data();
                                     });
  std::memset(bytes.data() + bytes.size() - 2, 0xff, 2);
  std::ofstream(weights, std::ios::binary) << bytes;
  outcome = run("model verify m --json");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.out.find(last->first), std::string::npos) << outcome.out;
}

TEST_F(ModelTools, FamiliesAreToldByTheirTensors) {
  const auto told = [&](const fs::path& file) {
    const json body = json::parse(done("model inspect --json " + file.string()));
    EXPECT_EQ(body["not_a_model"], json(nullptr));
    return body["family"].get<std::string>() + " " + body["pipeline"].get<std::string>();
  };
  // Names that lie.
  EXPECT_EQ(told(foreign("micro-sd1", "sdxl.safetensors", same)), "sd1 StableDiffusionPipeline");
  EXPECT_EQ(told(foreign("micro-sd2", "flux.safetensors", same)), "sd2 StableDiffusionPipeline");
  EXPECT_EQ(told(foreign("micro-sdxl", "sd1.safetensors", same)), "sdxl StableDiffusionXLPipeline");
  EXPECT_EQ(told(refiner_model("base.safetensors")),
            "sdxl-refiner StableDiffusionXLImg2ImgPipeline");
  EXPECT_EQ(told(inpaint_model()), "sd1 StableDiffusionInpaintPipeline");
  const auto bare = [](std::string name) {
    const std::string usual = "model.diffusion_model.";
    return name.starts_with(usual) ? name.substr(usual.size()) : name;
  };
  EXPECT_EQ(told(foreign("micro-sd1", "bare.safetensors", bare)), "sd1 StableDiffusionPipeline");
}

TEST_F(ModelTools, RefinersAndInpaintingModelsConvertAndSayWhatTheyAreFor) {
  const std::string words = " --tokenizer '" + micro("micro-sd1") + "/tokenizer'";
  const fs::path masks = inpaint_model();
  const fs::path refiner = refiner_model("refiner.safetensors");
  done("model convert masks.safetensors masks-df" + words);
  done("model convert refiner.safetensors refiner-df" + words);
  for (const std::string model : {"masks.safetensors", "masks-df"})
    expect_refused("generate cat --output x.png --model " + model + words, 1,
                   "fills a masked part");
  for (const std::string model : {"refiner.safetensors", "refiner-df"})
    expect_refused("generate cat --output x.png --model " + model + words, 1, "SDXL refiner");
}

TEST_F(ModelTools, ProgressIsShownAsLinesWhenAsked) {
  const Outcome outcome =
      run("model convert '" + micro("micro-sd1") + "' one.safetensors --progress plain");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_NE(outcome.err.find("converting"), std::string::npos) << outcome.err;
}

TEST_F(ModelTools, AKilledConversionToASingleFileLeavesNothingVisibleAndGoesOn) {
  // The small model with some 400 MB of zeros in it, so that there is time to kill.
  fs::copy(micro("micro-sd1"), folder_ / "large", fs::copy_options::recursive);
  const fs::path unet = folder_ / "large/unet/diffusion_pytorch_model.safetensors";
  const std::vector<std::byte> zeros(64u << 20);
  std::vector<TensorToWrite> tensors;
  const auto small = SafetensorsFile::open(unet);
  int large = 0;
  for (const auto& [name, view] : small->tensors()) {
    if (name.ends_with(".bias") && large++ < 6)
      tensors.push_back({name, DType::kF32, {4096, 4096}, zeros});
    else
      tensors.push_back({name, view.dtype, view.shape, view.bytes});
  }
  ASSERT_TRUE(write_safetensors(unet, tensors).ok());
  done("model convert large wanted.safetensors");

  const pid_t child = fork();
  if (child == 0) {
    if (chdir(folder_.c_str()) != 0) _exit(126);
    execl(LIMNER_PROGRAM, "limner", "model", "convert", "large", "out.safetensors", nullptr);
    _exit(127);
  }
  for (int i = 0; i < 10'000 && !fs::exists(folder_ / "out.safetensors.partial.json"); ++i)
    std::this_thread::sleep_for(1ms);
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status)) << "it was done before it could be killed";
  EXPECT_FALSE(fs::exists(folder_ / "out.safetensors"));
  EXPECT_TRUE(fs::exists(folder_ / "out.safetensors.partial"));

  const json second = json::parse(done("model convert large out.safetensors --json"));
  EXPECT_GE(second["kept_bytes"].get<std::uint64_t>(), 64u << 20);
  EXPECT_EQ(file_sha256(folder_ / "out.safetensors").value(),
            file_sha256(folder_ / "wanted.safetensors").value());
  EXPECT_FALSE(fs::exists(folder_ / "out.safetensors.partial"));
  EXPECT_FALSE(fs::exists(folder_ / "out.safetensors.partial.json"));
}

}  // namespace
}  // namespace limner
