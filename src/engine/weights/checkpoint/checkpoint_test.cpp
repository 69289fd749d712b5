// Single files and conversion over the small models of the parity fixtures.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "engine/weights/checkpoint/blend.h"
#include "engine/weights/checkpoint/convert.h"
#include "engine/weights/checkpoint/convert_dtype.h"
#include "engine/weights/checkpoint/folder_writer.h"
#include "engine/weights/checkpoint/verify.h"
#include "engine/weights/inspect.h"
#include "engine/weights/testing.h"

namespace limner::engine::weights {
namespace {

namespace fs = std::filesystem;

fs::path micro(const std::string& name) {
  return fs::path(LIMNER_SOURCE_DIR) / "tests/parity/fixtures/pipelines" / name / "model";
}

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string path = entry.path().lexically_relative(folder).generic_string();
    if (entry.is_regular_file() && path != kManifestName) files[path] = content(entry.path());
  }
  return files;
}

class Checkpoint : public ::testing::Test {
 protected:
  fs::path path(const std::string& name) const { return folder_.path() / name; }

  // The model `name` of the fixtures as a single file.
  fs::path single_file(const std::string& name) {
    const fs::path file = path(name + ".safetensors");
    const auto done = write_single_file(read_model(micro(name)).value(), {.output = file});
    EXPECT_TRUE(done.ok()) << done.error().message;
    return file;
  }

  // A file as others write it: without our texts, tensors renamed by `rename` ("" leaves one out).
  fs::path foreign(const fs::path& from, const std::function<std::string(std::string)>& rename,
                   std::vector<TensorToWrite> more = {}) {
    const auto file = SafetensorsFile::open(from);
    for (const auto& [name, view] : file->tensors()) {
      const std::string other = rename(name);
      if (!other.empty()) more.push_back({other, view.dtype, view.shape, view.bytes});
    }
    const fs::path out = path(fmt::format("foreign{}.safetensors", ++count_));
    EXPECT_TRUE(write_safetensors(out, std::move(more)).ok());
    return out;
  }
  static std::string same(std::string name) { return name; }

  std::shared_ptr<const SingleFile> look(const fs::path& file) {
    return SingleFile::open(file, {.headers_only = true});
  }
  std::string refusal(const fs::path& file) {
    const auto read = read_model(file, {.tokenizer = micro("micro-sd1") / "tokenizer"});
    return read.ok() ? "" : read.error().message;
  }

  testing::TemporaryFolder folder_;
  int count_ = 0;
};

void expect_same_tensors(const Weights& a, const Weights& b) {
  ASSERT_EQ(a.names(), b.names());
  for (const std::string& name : a.names()) {
    const TensorView &x = *a.find(name), &y = *b.find(name);
    EXPECT_EQ(x.shape, y.shape) << name;
    EXPECT_EQ(x.dtype, y.dtype) << name;
    EXPECT_TRUE(std::equal(x.bytes.begin(), x.bytes.end(), y.bytes.begin(), y.bytes.end())) << name;
  }
}

TEST_F(Checkpoint, ThereAndBackIsTheSameFolderByteForByte) {
  for (const char* name : {"micro-sd1", "micro-sd2", "micro-sdxl"}) {
    const auto model = read_model(single_file(name));
    ASSERT_TRUE(model.ok()) << model.error().message;
    const auto written = write_folder(*model, {.output = path(std::string(name) + "-df")});
    ASSERT_TRUE(written.ok()) << written.error().message;
    const auto was = files_of(micro(name)), is = files_of(path(std::string(name) + "-df"));
    ASSERT_EQ(was.size(), is.size()) << name;
    for (const auto& [file, bytes] : was) EXPECT_TRUE(is.at(file) == bytes) << name << " " << file;
  }
}

TEST_F(Checkpoint, FamiliesAreToldByTensors) {
  EXPECT_EQ(look(single_file("micro-sd1"))->layout().family, CheckpointFamily::kSd1);
  EXPECT_EQ(look(single_file("micro-sd2"))->layout().family, CheckpointFamily::kSd2);
  const fs::path xl = single_file("micro-sdxl");
  EXPECT_EQ(look(xl)->layout().family, CheckpointFamily::kSdxl);
  const auto refiner = foreign(xl, [](std::string name) {
    const std::string second = "conditioner.embedders.1.";
    if (name.starts_with("conditioner.embedders.0.")) return std::string();
    return name.starts_with(second) ? "conditioner.embedders.0." + name.substr(second.size())
                                    : name;
  });
  const auto layout = identify_checkpoint(*Weights::open_file(refiner).value(), "refiner");
  EXPECT_EQ(layout.family, CheckpointFamily::kSdxlRefiner);
  EXPECT_EQ(pipeline_class(layout), "StableDiffusionXLImg2ImgPipeline");
}

TEST_F(Checkpoint, TheUNetMayLieUnderAnyOfItsPrefixes) {
  const fs::path file = single_file("micro-sd1");
  const auto wanted = look(file)->components().at("unet");
  for (const std::string prefix : {"diffusion_model.", ""}) {
    const auto other = foreign(file, [&](std::string name) {
      const std::string usual = "model.diffusion_model.";
      return name.starts_with(usual) ? prefix + name.substr(usual.size()) : name;
    });
    expect_same_tensors(*look(other)->components().at("unet"), *wanted);
  }
}

TEST_F(Checkpoint, SizesComeFromTheTensorsAndTheRestFromTheFamily) {
  const auto file = look(foreign(single_file("micro-sdxl"), same));
  const auto unet = file->json("unet/config.json");
  const auto own = read_model(micro("micro-sdxl"))->config("unet").object();
  for (const char* key :
       {"block_out_channels", "cross_attention_dim", "layers_per_block", "down_block_types",
        "up_block_types", "in_channels", "out_channels", "use_linear_projection",
        "addition_embed_type", "addition_time_embed_dim", "transformer_layers_per_block",
        "projection_class_embeddings_input_dim"}) {
    EXPECT_EQ(unet.at(key), own.at(key)) << key;
  }
  EXPECT_EQ(unet.at("sample_size"), 128);
  const auto scheduler = file->json("scheduler/scheduler_config.json");
  EXPECT_EQ(scheduler.at("_class_name"), "EulerDiscreteScheduler");
  EXPECT_EQ(scheduler.at("prediction_type"), "epsilon");
  EXPECT_EQ(file->json("text_encoder_2/config.json").at("hidden_act"), "gelu");
  EXPECT_EQ(file->json("vae/config.json").at("scaling_factor"), 0.13025);
}

TEST_F(Checkpoint, MarkersTellWhatTheNetworkPredicts) {
  const fs::path file = single_file("micro-sdxl");
  const auto v = look(foreign(file, same, {{"v_pred", DType::kF32, {0}, {}}}));
  EXPECT_EQ(v->json("scheduler/scheduler_config.json").at("prediction_type"), "v_prediction");
  const auto zero = look(
      foreign(file, same, {{"v_pred", DType::kF32, {0}, {}}, {"ztsnr", DType::kF32, {0}, {}}}));
  const auto scheduler = zero->json("scheduler/scheduler_config.json");
  EXPECT_EQ(scheduler.at("rescale_betas_zero_snr"), true);
  EXPECT_EQ(scheduler.at("timestep_spacing"), "trailing");
}

TEST_F(Checkpoint, SecondVersionsMustSayWhatTheyPredict) {
  const fs::path file = foreign(single_file("micro-sd2"), same);
  const fs::path words = micro("micro-sd2") / "tokenizer";
  const auto open = [&](const std::string& prediction) {
    return read_model(file, {.tokenizer = words, .prediction = prediction});
  };
  ASSERT_FALSE(open("").ok());
  EXPECT_NE(open("").error().message.find("--prediction"), std::string::npos);
  EXPECT_EQ(open("v_prediction")->scheduler_config().at("prediction_type"), "v_prediction");
  EXPECT_EQ(open("epsilon")->scheduler_config().at("prediction_type"), "epsilon");
  EXPECT_FALSE(open("velocity").ok());
}

TEST_F(Checkpoint, NineChannelsAreAnInpaintingModel) {
  const fs::path file = single_file("micro-sd1");
  const std::string first = "model.diffusion_model.input_blocks.0.0.weight";
  std::vector<std::byte> zeros(8 * 9 * 3 * 3 * 4);
  const auto inpaint = foreign(file, [&](std::string name) { return name == first ? "" : name; },
                               {{first, DType::kF32, {8, 9, 3, 3}, zeros}});
  EXPECT_TRUE(look(inpaint)->layout().inpaint);
  EXPECT_EQ(look(inpaint)->json("model_index.json").at("_class_name"),
            "StableDiffusionInpaintPipeline");
}

TEST_F(Checkpoint, AveragedWeightsAreTakenWhenAskedFor) {
  const fs::path file = single_file("micro-sd1");
  const auto plain = SafetensorsFile::open(file);
  std::vector<TensorToWrite> averages;
  std::vector<std::vector<std::byte>> zeros;
  zeros.reserve(plain->tensors().size());
  for (const auto& [name, view] : plain->tensors()) {
    if (!name.starts_with("model.diffusion_model.")) continue;
    std::string flat = name.substr(6);
    std::erase(flat, '.');
    zeros.emplace_back(view.bytes.size());
    averages.push_back({"model_ema." + flat, view.dtype, view.shape, zeros.back()});
  }
  const fs::path both = foreign(file, same, averages);
  const SingleFileOptions ema = {.ema = true, .headers_only = true};
  const auto averaged = SingleFile::open(both, ema)->components().at("unet");
  const auto current = look(both)->components().at("unet");
  EXPECT_EQ(averaged->names(), current->names());
  EXPECT_EQ(averaged->find("conv_in.bias")->bytes[0], std::byte{0});
  EXPECT_NE(std::memcmp(averaged->find("conv_in.bias")->bytes.data(),
                        current->find("conv_in.bias")->bytes.data(), 4),
            0);
  EXPECT_FALSE(look(both)->left_over().empty());
  EXPECT_THROW(SingleFile::open(file, ema), Failure);
}

TEST_F(Checkpoint, WhatDiffusersLeavesOutOfSecondVersionsIsLeftOver) {
  std::vector<std::byte> bytes(16 * 4);
  const auto file = foreign(
      single_file("micro-sd2"), same,
      {{"cond_stage_model.model.transformer.resblocks.23.ln_1.weight", DType::kF32, {16}, bytes},
       {"cond_stage_model.model.text_projection", DType::kF32, {4, 4}, bytes},
       {"cond_stage_model.model.logit_scale", DType::kF32, {}, std::span(bytes).first(4)}});
  EXPECT_EQ(look(file)->left_over().size(), 3u);
}

TEST_F(Checkpoint, OtherKindsOfFilesAreNamed) {
  std::vector<std::byte> bytes(4);
  const auto only = [&](const std::string& tensor) {
    const fs::path file = path(fmt::format("only{}.safetensors", ++count_));
    EXPECT_TRUE(write_safetensors(file, {{tensor, DType::kF32, {1}, bytes}}).ok());
    return refusal(file);
  };
  for (const std::string prefix : {"", "model.diffusion_model."}) {
    EXPECT_NE(only(prefix + "double_blocks.0.img_attn.norm.key_norm.scale").find("FLUX.1"),
              std::string::npos);
    EXPECT_NE(only(prefix + "joint_blocks.0.context_block.adaLN_modulation.1.bias")
                  .find("Stable Diffusion 3"),
              std::string::npos);
  }
  EXPECT_NE(only("control_model.time_embed.0.bias").find("ControlNet"), std::string::npos);
  EXPECT_NE(only("lora_unet_mid_block_attentions_0_proj_in.alpha").find("--lora"),
            std::string::npos);
  EXPECT_NE(only("x").find("no UNet"), std::string::npos);
  const fs::path whole = single_file("micro-sd1");
  const auto without = [&](const std::string& prefix) {
    return refusal(
        foreign(whole, [&](std::string name) { return name.starts_with(prefix) ? "" : name; }));
  };
  EXPECT_NE(without("first_stage_model.").find("has no VAE"), std::string::npos);
  EXPECT_NE(without("cond_stage_model.").find("has no text encoder"), std::string::npos);
}

TEST_F(Checkpoint, ATensorNobodyKnowsIsAnError) {
  std::vector<std::byte> bytes(4);
  const auto file = foreign(single_file("micro-sd1"), same,
                            {{"model.diffusion_model.extra.weight", DType::kF32, {1}, bytes}});
  EXPECT_NE(refusal(file).find("extra.weight"), std::string::npos);
}

TEST_F(Checkpoint, WithoutAVocabularyTheErrorSaysWhatToDo) {
  const auto read = read_model(foreign(single_file("micro-sd1"), same));
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.error().code, ErrorCode::kNotFound);
  EXPECT_NE(read.error().message.find("--tokenizer"), std::string::npos);
}

TEST_F(Checkpoint, TheSecondTowerPadsWithItsOwnToken) {
  const auto model = read_model(foreign(single_file("micro-sdxl"), same),
                                {.tokenizer = micro("micro-sd1") / "tokenizer"});
  ASSERT_TRUE(model.ok()) << model.error().message;
  const fs::path second = model->tokenizer_folder("tokenizer_2");
  EXPECT_NE(content(second / "tokenizer_config.json").find(R"("pad_token": "!")"),
            std::string::npos);
  EXPECT_EQ(content(second / "merges.txt"), content(micro("micro-sd1") / "tokenizer/merges.txt"));
}

TEST_F(Checkpoint, CarriedTextsCannotLeaveTheFolder) {
  for (const char* name : {"../x.json", "/etc/x.json", "a/b/c.json", ".x.json", "x.sh", ""}) {
    const fs::path file = path("carried.safetensors");
    const auto source = SafetensorsFile::open(single_file("micro-sd1"));
    std::vector<TensorToWrite> tensors;
    for (const auto& [tensor, view] : source->tensors())
      tensors.push_back({tensor, view.dtype, view.shape, view.bytes});
    ASSERT_TRUE(
        write_safetensors(file, tensors, {{kFolderTextsKey, nlohmann::json{{name, "{}"}}.dump()}})
            .ok());
    EXPECT_NE(refusal(file).find("no text file of a model folder"), std::string::npos) << name;
    fs::remove(path("micro-sd1.safetensors"));
  }
}

TEST_F(Checkpoint, HalvesAreWrittenUnderDiffusersNames) {
  const auto model = read_model(micro("micro-sdxl")).value();
  ASSERT_TRUE(
      write_folder(model, {.output = path("half"), .dtype = DType::kF16, .variant = "fp16"}).ok());
  for (const char* file :
       {"unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder_2/model.fp16.safetensors"}) {
    EXPECT_TRUE(fs::exists(path("half") / file)) << file;
  }
  const auto halves = Weights::open_component(path("half") / "unet").value();
  EXPECT_EQ(halves->find("conv_in.weight")->dtype, DType::kF16);
}

TEST_F(Checkpoint, AnInterruptedConversionGoesOnWhereItStopped) {
  const auto model = read_model(micro("micro-sdxl")).value();
  int calls = 0;
  WriteOptions options = {.output = path("out")};
  options.progress = [&](std::uint64_t done, std::uint64_t total) {
    // The text encoders and a part of the UNet are written by then.
    if (++calls == 150) throw Failure(ErrorCode::kCancelled, "stop");
  };
  ASSERT_FALSE(write_folder(model, options).ok());
  EXPECT_FALSE(fs::exists(path("out")));
  // What was finished but changed since is made again.
  std::ofstream(path("out.partial/text_encoder/model.safetensors"), std::ios::app) << "x";
  options.progress = {};
  const auto second = write_folder(model, options);
  ASSERT_TRUE(second.ok()) << second.error().message;
  EXPECT_EQ(second->kept, std::vector<std::string>{"text_encoder_2/model.safetensors"});
  EXPECT_FALSE(fs::exists(path("out.partial")));
  EXPECT_EQ(files_of(path("out")), files_of(micro("micro-sdxl")));
  // Never over something that is there.
  EXPECT_FALSE(write_folder(model, options).ok());
}

TEST_F(Checkpoint, AHalfBuiltFolderOfOtherOptionsIsNotTakenOver) {
  const auto model = read_model(micro("micro-sd1")).value();
  int calls = 0;
  WriteOptions options = {.output = path("out"), .dtype = DType::kF16};
  options.progress = [&](std::uint64_t, std::uint64_t) {
    if (++calls == 60) throw Failure(ErrorCode::kCancelled, "stop");
  };
  ASSERT_FALSE(write_folder(model, options).ok());
  const auto other = write_folder(model, {.output = path("out")});
  ASSERT_TRUE(other.ok());
  EXPECT_TRUE(other->kept.empty());
  EXPECT_EQ(files_of(path("out")), files_of(micro("micro-sd1")));
}

TEST_F(Checkpoint, VerifyFindsEveryKindOfDamage) {
  ASSERT_TRUE(write_folder(read_model(micro("micro-sd1")).value(), {.output = path("m")}).ok());
  const auto problems = [&] { return verify(path("m")).value().problems; };
  ASSERT_TRUE(problems().empty()) << problems().front();
  EXPECT_TRUE(verify(path("m"))->has_manifest);

  const fs::path weights = path("m/unet/diffusion_pytorch_model.safetensors");
  std::string bytes = content(weights);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  std::ofstream(weights, std::ios::binary) << bytes;
  ASSERT_EQ(problems().size(), 1u);
  EXPECT_NE(problems()[0].find("SHA-256"), std::string::npos);

  std::memcpy(bytes.data() + bytes.size() - 4, "\x00\x00\xc0\x7f", 4);  // NaN
  std::ofstream(weights, std::ios::binary) << bytes;
  EXPECT_EQ(problems().size(), 2u);

  fs::remove(path("m/tokenizer/merges.txt"));
  std::ofstream(path("m/text_encoder/added.json")) << "{}";
  EXPECT_EQ(problems().size(), 4u);

  std::ofstream(path("m") / kManifestName) << R"({"files": {"../../etc/passwd": {}, "x": 3}})";
  EXPECT_GE(problems().size(), 3u);
  std::ofstream(path("m") / kManifestName) << "[1]";
  EXPECT_FALSE(problems().empty());
}

TEST_F(Checkpoint, BlendsAreWeightedSums) {
  const auto a = read_model(micro("micro-sd1")).value();
  // The same model, twice as strong.
  WriteOptions twice = {.output = path("b")};
  twice.edit = blend({{&a, 2.0}});
  ASSERT_TRUE(write_folder(a, twice).ok());
  const auto b = read_model(path("b")).value();
  WriteOptions sum = {.output = path("c")};
  sum.edit = blend({{&a, 0.25}, {&b, 0.5}});  // 0.25 a + 0.5 (2 a) = 1.25 a
  ASSERT_TRUE(write_folder(a, sum).ok());
  const auto x = a.weights("unet").value(), y = read_model(path("c"))->weights("unet").value();
  const auto first = [](const Weights& weights) {
    const TensorView& view = *weights.find("conv_out.bias");
    return to_floats(view.dtype, view.bytes)[0];
  };
  EXPECT_NEAR(first(*y) / first(*x), 1.25, 1e-3);  // the models are stored as float16

  const auto other = read_model(micro("micro-sd2")).value();
  WriteOptions wrong = {.output = path("d")};
  wrong.edit = blend({{&a, 0.5}, {&other, 0.5}});
  const auto refused = write_folder(a, wrong);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidModel);
}

TEST_F(Checkpoint, InspectDescribesTheNetworksOfASingleFile) {
  const auto found = inspect(foreign(single_file("micro-sd1"), same));
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(found->family, "sd1");
  EXPECT_EQ(found->pipeline_class, "StableDiffusionPipeline");
  EXPECT_EQ(found->components.size(), 3u);
  EXPECT_TRUE(found->problems.empty());
  EXPECT_EQ(found->parameters, inspect(micro("micro-sd1"))->parameters);
}

}  // namespace
}  // namespace limner::engine::weights
