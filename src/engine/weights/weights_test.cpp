#include "engine/weights/weights.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/sha256.h"
#include "engine/weights/testing.h"

namespace limner::engine::weights {
namespace {

using testing::FloatTensor;
using testing::TemporaryFolder;
using testing::write_floats;

class WeightsTest : public ::testing::Test {
 protected:
  std::filesystem::path unet() const { return folder_.path() / "unet"; }

  // A file of one tensor of that name, so that a test sees which file was taken.
  void put(const std::string& file, const std::string& tensor) {
    write_floats(unet() / file, {{tensor, {2}, {1, 2}}});
  }

  std::vector<std::string> names(std::string_view variant = {}) {
    const auto weights = Weights::open_component(unet(), variant);
    EXPECT_TRUE(weights.ok()) << weights.error().message;
    return weights.ok() ? (*weights)->names() : std::vector<std::string>{};
  }

  std::string failure(ErrorCode want, std::string_view variant = {}) {
    const auto weights = Weights::open_component(unet(), variant);
    if (weights.ok()) return "";
    EXPECT_EQ(name(weights.error().code), name(want)) << weights.error().message;
    return weights.error().message;
  }

  void index(const std::string& file, const std::string& weight_map) {
    folder_.write("unet/" + file,
                  R"({"metadata":{"total_size":16},"weight_map":)" + weight_map + "}");
  }

  TemporaryFolder folder_;
};

using Names = std::vector<std::string>;

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(WeightsTest, FindsPlainFilesOfBothLibraries) {
  put("diffusion_pytorch_model.safetensors", "d");
  EXPECT_EQ(names(), Names{"d"});
  std::filesystem::remove_all(unet());
  put("model.safetensors", "m");
  EXPECT_EQ(names(), Names{"m"});
}

TEST_F(WeightsTest, FindsVariants) {
  put("diffusion_pytorch_model.safetensors", "plain");
  put("diffusion_pytorch_model.fp16.safetensors", "half");
  put("diffusion_pytorch_model.non_ema.safetensors", "raw");
  EXPECT_EQ(names(), Names{"plain"});
  EXPECT_EQ(names("fp16"), Names{"half"});
  EXPECT_EQ(names("non_ema"), Names{"raw"});
  EXPECT_EQ(names("bf16"),
            Names{"plain"});  // as diffusers: components without the variant use plain files
  EXPECT_EQ(Weights::variants(unet()), (Names{"", "fp16", "non_ema"}));
}

TEST_F(WeightsTest, TakesTheOnlyVariantUnasked) {
  put("model.fp16.safetensors", "half");
  EXPECT_EQ(names(), Names{"half"});
  put("model.bf16.safetensors", "brain");
  EXPECT_CONTAINS(failure(ErrorCode::kNotFound), "say which variant to load; it has bf16, fp16");
  EXPECT_CONTAINS(failure(ErrorCode::kNotFound, "fp61"),
                  "no weights of the variant 'fp61'; it has bf16, fp16");
}

TEST_F(WeightsTest, AVariantCannotLeaveTheFolder) {
  put("model.safetensors", "m");
  EXPECT_CONTAINS(failure(ErrorCode::kInvalidArgument, "../x"), "variant");
  EXPECT_CONTAINS(failure(ErrorCode::kInvalidArgument, "a/b"), "variant");
}

TEST_F(WeightsTest, ReadsShards) {
  put("diffusion_pytorch_model-00001-of-00002.safetensors", "a");
  put("diffusion_pytorch_model-00002-of-00002.safetensors", "b");
  index(
      "diffusion_pytorch_model.safetensors.index.json",
      R"({"a":"diffusion_pytorch_model-00001-of-00002.safetensors","b":"diffusion_pytorch_model-00002-of-00002.safetensors"})");
  EXPECT_EQ(names(), (Names{"a", "b"}));
  const auto weights = Weights::open_component(unet());
  EXPECT_EQ((*weights)->bytes(), 16u);
  EXPECT_EQ((*weights)->files().size(), 2u);
}

TEST_F(WeightsTest, ReadsShardedVariantsHoweverTheyAreSpelled) {
  for (const char* spelling :
       {"model.safetensors.index.fp16.json", "model.fp16.safetensors.index.json"}) {
    for (const char* shard :
         {"model.fp16-00001-of-00001.safetensors", "model-00001-of-00001.fp16.safetensors"}) {
      std::filesystem::remove_all(unet());
      put(shard, "s");
      index(spelling, std::string(R"({"s":")") + shard + R"("})");
      EXPECT_EQ(names("fp16"), Names{"s"}) << spelling;
      EXPECT_EQ(names(), Names{"s"}) << spelling;
      EXPECT_EQ(Weights::variants(unet()), Names{"fp16"}) << spelling << " " << shard;
    }
  }
}

TEST_F(WeightsTest, PrefersWhatTheWritingLibraryPrefers) {
  put("diffusion_pytorch_model.safetensors", "single");
  put("s.safetensors", "sharded");
  index("diffusion_pytorch_model.safetensors.index.json", R"({"sharded":"s.safetensors"})");
  EXPECT_EQ(names(), Names{"sharded"});
  std::filesystem::remove_all(unet());
  put("model.safetensors", "single");
  put("s.safetensors", "sharded");
  index("model.safetensors.index.json", R"({"sharded":"s.safetensors"})");
  EXPECT_EQ(names(), Names{"single"});
}

TEST_F(WeightsTest, RefusesBrokenIndices) {
  const auto broken = [&](const std::string& map, std::string_view reason,
                          ErrorCode code = ErrorCode::kInvalidModel) {
    index("model.safetensors.index.json", map);
    const std::string message = failure(code);
    EXPECT_NE(message.find(reason), std::string::npos) << message;
  };
  put("s.safetensors", "a");
  put("t.safetensors", "b");
  write_floats(folder_.path() / "outside.safetensors", {{"a", {1}, {1}}});
  broken(R"({"a":"s.safetensors","b":"gone.safetensors"})",
         "'gone.safetensors', which is not there");
  broken(R"({"a":"s.safetensors","x":"s.safetensors"})",
         "says that tensor 'x' is in 's.safetensors', but it is not");
  broken(R"({"a":"s.safetensors","b":"s.safetensors","c":"t.safetensors"})", "says that tensor");
  broken(R"({"a":"../outside.safetensors"})", "not a plain file name");
  broken(R"({"a":")" + (folder_.path() / "outside.safetensors").string() + R"("})",
         "not a plain file name");
  broken(R"({"a":"..\\outside.safetensors"})", "not a plain file name");
  broken(R"({"a":".."})", "not a plain file name");
  broken(R"({"a":""})", "not a plain file name");
  broken(R"({"a":"s.safetensors\u0000"})", "not a plain file name");
  broken(R"({"a":"pytorch_model.bin"})", "pickle", ErrorCode::kUnsupported);
  broken(R"({"a":7})", "no file name");
  broken("{}", "empty");
  broken("[]", "weight_map");
  broken(R"({"a":"s.safetensors","a":"t.safetensors"})", "occurs twice");
  folder_.write("unet/model.safetensors.index.json", "{");
  EXPECT_CONTAINS(failure(ErrorCode::kInvalidModel), "not valid JSON");
}

TEST_F(WeightsTest, RefusesATensorInTwoShards) {
  put("s.safetensors", "a");
  write_floats(unet() / "t.safetensors", {{"a", {1}, {1}}, {"b", {1}, {1}}});
  index("model.safetensors.index.json", R"({"a":"s.safetensors","b":"t.safetensors"})");
  EXPECT_CONTAINS(failure(ErrorCode::kInvalidModel), "'a' is also in another shard");
}

TEST_F(WeightsTest, SaysWhatIsMissing) {
  EXPECT_CONTAINS(failure(ErrorCode::kNotFound), "no such folder");
  std::filesystem::create_directories(unet());
  EXPECT_CONTAINS(failure(ErrorCode::kNotFound),
                  "has no weights, want diffusion_pytorch_model.safetensors");
  put("model-00001-of-00002.safetensors", "a");
  EXPECT_CONTAINS(failure(ErrorCode::kNotFound), "index.json");
}

TEST_F(WeightsTest, RefusesPicklesWithReasonAndRemedy) {
  for (const char* file : {"diffusion_pytorch_model.bin", "pytorch_model.bin", "model.ckpt",
                           "model.PT", "x.pth", "pytorch_model.bin.index.json"}) {
    std::filesystem::remove_all(unet());
    folder_.write(std::string("unet/") + file, "PK\x03\x04 whatever");
    const std::string message = failure(ErrorCode::kUnsupported);
    EXPECT_CONTAINS(message, "can run code");
    EXPECT_CONTAINS(message, "convert it to safetensors");
  }
  // A pickle that calls itself safetensors.
  std::filesystem::remove_all(unet());
  folder_.write("unet/model.safetensors",
                std::string("PK\x03\x04\x14\0\x08\x08", 8) + std::string(64, 'x'));
  EXPECT_CONTAINS(failure(ErrorCode::kUnsupported), "can run code");
}

TEST_F(WeightsTest, FindsAndRenames) {
  write_floats(unet() / "model.safetensors", {{"text_model.embeddings.w", {1}, {1}},
                                              {"text_model.final.w", {2}, {2, 3}},
                                              {"proj.w", {1}, {4}}});
  const auto opened = Weights::open_component(unet());
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ((*opened)->find("nothing"), nullptr);
  const auto strip = [](std::string_view name) {
    return std::string(name.starts_with("text_model.") ? name.substr(11) : name);
  };
  std::shared_ptr<const Weights> renamed = Weights::renamed(*opened, strip);
  EXPECT_EQ(renamed->names(), (Names{"embeddings.w", "final.w", "proj.w"}));
  ASSERT_NE(renamed->find("final.w"), nullptr);
  EXPECT_EQ(renamed->find("final.w"), (*opened)->find("text_model.final.w"));
  EXPECT_EQ(renamed->find("text_model.final.w"), nullptr);
  EXPECT_EQ(renamed->bytes(), (*opened)->bytes());
  EXPECT_EQ(renamed->files(), (*opened)->files());
  EXPECT_EQ(renamed->sha256(), (*opened)->sha256());
  EXPECT_TRUE(renamed->prefetch(*renamed->find("final.w")).ok());
  renamed->release(*renamed->find("final.w"));
  EXPECT_THROW(Weights::renamed(*opened, [](std::string_view) { return std::string("same"); }),
               Failure);
}

TEST_F(WeightsTest, RenamedWeightsKeepTheMapAlive) {
  write_floats(unet() / "model.safetensors", {{"a", {2}, {1, 7}}});
  std::shared_ptr<const Weights> renamed;
  {
    auto opened = Weights::open_component(unet());
    ASSERT_TRUE(opened.ok());
    renamed =
        Weights::renamed(*opened, [](std::string_view name) { return std::string(name) + "2"; });
  }
  float value = 0;
  std::memcpy(&value, renamed->find("a2")->bytes.data() + 4, 4);
  EXPECT_EQ(value, 7.0f);
}

TEST_F(WeightsTest, HashIsThatOfTheFilesOneAfterTheOther) {
  put("s.safetensors", "a");
  put("t.safetensors", "b");
  index("model.safetensors.index.json", R"({"a":"s.safetensors","b":"t.safetensors"})");
  const auto weights = Weights::open_component(unet());
  ASSERT_TRUE(weights.ok());
  std::string all;
  for (const auto& file : (*weights)->files()) {
    std::ifstream stream(file, std::ios::binary);
    all.append(std::istreambuf_iterator<char>(stream), {});
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back(
        [&] { EXPECT_EQ((*weights)->sha256(), sha256_hex(std::as_bytes(std::span(all)))); });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(WeightsTest, OpensASingleFile) {
  put("anything.safetensors", "a");
  const auto weights = Weights::open_file(unet() / "anything.safetensors");
  ASSERT_TRUE(weights.ok());
  EXPECT_EQ((*weights)->names(), Names{"a"});
  EXPECT_FALSE(Weights::open_file(unet() / "none.safetensors").ok());
}

}  // namespace
}  // namespace limner::engine::weights
