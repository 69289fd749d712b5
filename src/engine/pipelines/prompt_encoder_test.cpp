#include "engine/pipelines/prompt_encoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/pipelines/registry.h"
#include "engine/weights/model_folder.h"
#include "engine/weights/safetensors.h"
#include "parity/fixture.h"

namespace limner::engine::pipelines {
namespace {

namespace fs = std::filesystem;
using contract::LongPrompt;
using contract::PromptOptions;
using contract::PromptSyntax;
using contract::Weighting;
using parity::relative_error;

const fs::path kFixtures = fs::path(LIMNER_SOURCE_DIR) / "tests/parity/fixtures";

std::unique_ptr<const Pipeline> load(const std::string& model,
                                     const std::vector<fs::path>& embeddings = {}) {
  const weights::ModelFolder folder =
      weights::read_model_folder(kFixtures / "pipelines" / model / "model").value_or_throw();
  return load_pipeline(
      {.folder = folder, .variant = {}, .placement = {}, .vae = {}, .embeddings = embeddings});
}

PromptText text(std::string positive, std::string negative = "", PromptOptions options = {},
                std::int64_t steps = 10) {
  return {std::move(positive), std::move(negative), 0, options, steps};
}

const Conditioning& first(const ConditioningSchedule& schedule) {
  return *schedule.front().conditioning;
}
const Conditioning& positive(const EncodedPrompt& prompt) {
  return first(prompt.conjuncts.front().schedule);
}

bool same(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && at::equal(a, b);
}

// The fixed matrix of tools/parity/prompt_fixtures.py.
at::Tensor projection(std::int64_t width) {
  const at::Tensor channel = at::arange(width, at::kDouble).unsqueeze(1);
  const at::Tensor column = at::arange(4, at::kDouble).unsqueeze(0);
  return at::cos(channel * (column + 1) + column).to(at::kFloat);
}

nlohmann::json stored_cases() {
  return nlohmann::json::parse(std::ifstream(kFixtures / "prompts/cases.json"));
}

class PromptParity : public testing::TestWithParam<nlohmann::json> {};

TEST_P(PromptParity, EqualsTheReferenceLibrary) {
  const nlohmann::json& stored = GetParam();
  const std::string name = stored.at("name"), weighting = stored.at("weighting");
  PromptOptions options;
  options.syntax = stored.at("syntax") == "compel" ? PromptSyntax::kCompel : PromptSyntax::kA1111;
  options.weighting = weighting == "lpw"      ? Weighting::kLpw
                      : weighting == "compel" ? Weighting::kCompel
                                              : Weighting::kA1111;
  const EncodedPrompt prompt =
      load(stored.at("model"))
          ->encode_prompt(text(stored.at("prompt"), stored.at("negative"), options), {});
  const auto expected =
      weights::Weights::open_file(kFixtures / "prompts/expected.safetensors").value_or_throw();
  const auto compare = [&](const std::string& tensor, const at::Tensor& got) {
    const weights::TensorView* view = expected->find(name + "." + tensor);
    ASSERT_EQ(view != nullptr, got.defined()) << tensor;
    if (view == nullptr) return;
    at::Tensor want = at::empty(view->shape, at::kFloat);
    std::memcpy(want.mutable_data_ptr(), view->bytes.data(), view->bytes.size());
    EXPECT_LE(relative_error(got, want), 1e-4) << tensor;
  };
  const auto states = [](const Conditioning& conditioning) {
    const at::Tensor& embeds = conditioning.prompt_embeds;
    return at::matmul(embeds.squeeze(0), projection(embeds.size(2)));
  };
  compare("prompt_embeds", states(positive(prompt)));
  compare("negative_prompt_embeds", states(first(prompt.negative)));
  compare("pooled_prompt_embeds", positive(prompt).pooled_prompt_embeds);
  compare("negative_pooled_prompt_embeds", first(prompt.negative).pooled_prompt_embeds);
}

INSTANTIATE_TEST_SUITE_P(Stored, PromptParity, testing::ValuesIn(stored_cases()),
                         [](const auto& test) {
                           return test.param.at("name").template get<std::string>();
                         });

TEST(PromptEncoder, ShortPromptsGiveTheSameBytesChunkedAndTruncated) {
  for (const char* model : {"micro-sd1", "micro-sdxl"}) {
    const auto pipeline = load(model);
    for (const char* negative : {"", "blue"}) {
      const auto chunked = pipeline->encode_prompt(text("a red circle", negative), {});
      const auto truncated = pipeline->encode_prompt(
          text("a red circle", negative,
               {PromptSyntax::kPlain, LongPrompt::kTruncate, Weighting::kA1111}),
          {});
      EXPECT_TRUE(same(positive(chunked).prompt_embeds, positive(truncated).prompt_embeds));
      EXPECT_TRUE(
          same(first(chunked.negative).prompt_embeds, first(truncated.negative).prompt_embeds));
    }
  }
}

TEST(PromptEncoder, BringsPositiveAndNegativeToOneLength) {
  const auto pipeline = load("micro-sdxl");
  std::string longer;
  for (int i = 0; i < 200; ++i) longer += "red ";
  const auto first_long = pipeline->encode_prompt(text(longer, "blue"), {});
  EXPECT_EQ(positive(first_long).prompt_embeds.size(1), 3 * 77);
  EXPECT_EQ(first(first_long.negative).prompt_embeds.size(1), 3 * 77);
  const auto second_long = pipeline->encode_prompt(text("blue", longer), {});
  EXPECT_EQ(positive(second_long).prompt_embeds.size(1), 3 * 77);
  // What is added is the empty prompt, and the pooled vector is the first chunk's.
  const auto empty = pipeline->encode_prompt(text("", "x"), {});
  const auto alone = pipeline->encode_prompt(text("blue", "x"), {});
  const at::Tensor& padded = positive(second_long).prompt_embeds;
  EXPECT_TRUE(same(padded.narrow(1, 0, 77), positive(alone).prompt_embeds));
  EXPECT_TRUE(same(padded.narrow(1, 77, 77), positive(empty).prompt_embeds));
  EXPECT_TRUE(
      same(positive(second_long).pooled_prompt_embeds, positive(alone).pooled_prompt_embeds));
}

TEST(PromptEncoder, WeightsOfOneChangeNothing) {
  for (const Weighting weighting : {Weighting::kA1111, Weighting::kLpw, Weighting::kCompel}) {
    const auto pipeline = load("micro-sdxl");
    const PromptOptions options{PromptSyntax::kA1111, LongPrompt::kChunk, weighting};
    const auto plain = pipeline->encode_prompt(text("a red circle", "blue", options), {});
    const auto marked = pipeline->encode_prompt(text("(a red:1.0) circle", "blue", options), {});
    EXPECT_TRUE(same(positive(plain).prompt_embeds, positive(marked).prompt_embeds));
  }
}

TEST(PromptEncoder, SchedulesShareTheTextsTheyReturnTo) {
  const auto pipeline = load("micro-sd1");
  const auto prompt = pipeline->encode_prompt(text("[red|blue] circle", "[a:b:0.5]", {}, 4), {});
  const ConditioningSchedule& schedule = prompt.conjuncts.at(0).schedule;
  ASSERT_EQ(schedule.size(), 4u);
  EXPECT_EQ(schedule[0].conditioning, schedule[2].conditioning);
  EXPECT_NE(schedule[0].conditioning, schedule[1].conditioning);
  EXPECT_EQ(prompt.negative.size(), 2u);
  EXPECT_EQ(prompt.negative[0].until_step, 2);
  const auto alone = pipeline->encode_prompt(text("blue circle", "b"), {});
  EXPECT_TRUE(same(schedule[1].conditioning->prompt_embeds, positive(alone).prompt_embeds));
}

TEST(PromptEncoder, AndGivesEachSideItsOwn) {
  const auto pipeline = load("micro-sdxl");
  const auto prompt = pipeline->encode_prompt(text("a red circle AND blue:0.5"), {});
  ASSERT_EQ(prompt.conjuncts.size(), 2u);
  EXPECT_EQ(prompt.conjuncts[1].weight, 0.5);
  const auto alone = pipeline->encode_prompt(text(" blue"), {});
  EXPECT_TRUE(
      same(first(prompt.conjuncts[1].schedule).prompt_embeds, positive(alone).prompt_embeds));
}

class Embeddings : public testing::Test {
 protected:
  Embeddings()
      : folder_(fs::temp_directory_path() / ("limner_embeddings_" + std::to_string(getpid()))) {
    fs::create_directories(folder_);
  }
  ~Embeddings() override { fs::remove_all(folder_); }

  void write(const std::string& file, const std::map<std::string, at::Tensor>& tensors) {
    std::vector<weights::TensorToWrite> list;
    for (const auto& [name, tensor] : tensors) {
      list.push_back({name,
                      weights::DType::kF32,
                      tensor.sizes().vec(),
                      {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
    }
    weights::write_safetensors(folder_ / file, std::move(list)).value_or_throw();
  }

  // The rows of the model's token table for the words "red" and "circle".
  static at::Tensor rows(const std::string& model, const std::string& suffix) {
    const fs::path folder = kFixtures / "pipelines" / model / "model";
    const auto tokenizer =
        prompt::ClipTokenizer::load(folder / ("tokenizer" + suffix)).value_or_throw();
    std::vector<std::int64_t> ids;
    for (const auto& token : tokenizer.tokenize("red circle").value_or_throw()) {
      ids.push_back(token.id);
    }
    const nn::TensorSource source(
        weights::Weights::open_component(folder / ("text_encoder" + suffix)).value_or_throw(), {});
    const std::string prefix =
        source.has("text_model.embeddings.token_embedding.weight") ? "text_model." : "";
    const std::int64_t width = model == "micro-sdxl" && suffix == "_2" ? 12 : 16;
    const at::Tensor table =
        source.take_small(prefix + "embeddings.token_embedding.weight", {545, width});
    return table.index({at::tensor(ids)}).contiguous();
  }

  // A prompt with `name` gives what one with "red circle" does, since it stands for their vectors.
  void expect_red_circle(const std::string& model, const std::string& name) {
    const auto pipeline = load(model, {folder_});
    const auto named = pipeline->encode_prompt(text("a " + name + " above", "x"), {});
    const auto spelled = pipeline->encode_prompt(text("a red circle above", "x"), {});
    EXPECT_LE(relative_error(positive(named).prompt_embeds, positive(spelled).prompt_embeds), 1e-6)
        << name;
    if (model == "micro-sdxl") {
      EXPECT_LE(relative_error(positive(named).pooled_prompt_embeds,
                               positive(spelled).pooled_prompt_embeds),
                1e-6);
    }
  }

  std::string error(const std::string& model, const std::string& prompt) {
    try {
      static_cast<void>(load(model, {folder_})->encode_prompt(text(prompt), {}));
    } catch (const Failure& failure) {
      return failure.what();
    }
    return "";
  }

  fs::path folder_;
};

TEST_F(Embeddings, StandForTheirVectorsInEverySpelling) {
  const at::Tensor both = rows("micro-sd1", "");
  write("webui.safetensors", {{"emb_params", both}});
  write("params.safetensors", {{"string_to_param.*", both}});
  write("learned_embeds.safetensors", {{"<red-circle>", both}});
  for (const char* name : {"webui", "WebUI", "params", "<red-circle>", "learned_embeds"}) {
    expect_red_circle("micro-sd1", name);
  }
  write("one.safetensors", {{"<one>", both[0].contiguous()}});
  const auto pipeline = load("micro-sd1", {folder_});
  EXPECT_LE(
      relative_error(positive(pipeline->encode_prompt(text("a <one>", "x"), {})).prompt_embeds,
                     positive(pipeline->encode_prompt(text("a red", "x"), {})).prompt_embeds),
      1e-6);
}

TEST_F(Embeddings, OfTwoEncodersGiveEachItsOwn) {
  const at::Tensor first = rows("micro-sdxl", ""), second = rows("micro-sdxl", "_2");
  write("xl.safetensors", {{"clip_l", first}, {"clip_g", second}});
  write("pivotal.safetensors", {{"text_encoders_0", first}, {"text_encoders_1", second}});
  expect_red_circle("micro-sdxl", "xl");
  expect_red_circle("micro-sdxl", "pivotal");
}

TEST_F(Embeddings, OfAnotherFamilyAreRefusedWithBothWidths) {
  write("wide.safetensors", {{"emb_params", at::ones({2, 24})}});
  write("xl.safetensors", {{"clip_l", at::ones({1, 16})}, {"clip_g", at::ones({1, 12})}});
  write("long.safetensors", {{"emb_params", at::ones({76, 16})}});
  write("many.safetensors", {{"a", at::ones({1, 16})}, {"b", at::ones({1, 16})}});
  EXPECT_EQ(error("micro-sd1", "a cat"), "");
  EXPECT_NE(
      error("micro-sd1", "a wide cat").find("24 wide, and text_encoder of this model takes 16"),
      std::string::npos);
  EXPECT_NE(error("micro-sd1", "a xl cat").find("SDXL"), std::string::npos);
  EXPECT_NE(error("micro-sdxl", "a wide cat").find("24 wide"), std::string::npos);
  EXPECT_NE(error("micro-sd1", "a long cat").find("76 vectors"), std::string::npos);
  EXPECT_NE(error("micro-sd1", "many").find("got 2"), std::string::npos);
}

TEST_F(Embeddings, ThatAreNotSafetensorsAreRefusedWhenNamed) {
  std::ofstream(folder_ / "old.pt") << "PK\x03\x04 not a tensor file";
  EXPECT_EQ(error("micro-sd1", "a cat"), "");
  EXPECT_NE(error("micro-sd1", "an old cat").find("old.pt"), std::string::npos);
}

}  // namespace
}  // namespace limner::engine::pipelines
