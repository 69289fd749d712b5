#include "platform/templates/templates.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "platform/templates/template_store.h"

namespace limner::platform {
namespace {

namespace fs = std::filesystem;

// The form that users have: three words of ours are added (sha256, defaults, prediction).
const std::string kGood = R"({
  "templates": {
    "portrait": {
      "name": "Realistic Portrait",
      "description": "Faces",
      "checkpoint": {
        "name": "Some Mix",
        "url": "https://models.example/api/download/models/1590699?type=Model",
        "filename": "some_mix.safetensors",
        "diffusers_dir": "some-df"
      },
      "loras": [
        {
          "name": "Detail",
          "url": "https://models.example/detail.safetensors",
          "scale": 1.5
        },
        { "name": "Light", "url": "https://models.example/x", "filename": "light.safetensors" }
      ],
      "defaults": { "steps": 24, "sampler": "dpmpp_2m", "width": 832, "height": 1216,
                    "guidance_scale": 4.5, "prompt_prefix": "photo", "negative_prompt": "blurry" }
    },
    "plain": {
      "checkpoint": {
        "url": "https://models.example/api/download/models/1590699?type=Model",
        "filename": "some_mix.safetensors",
        "diffusers_dir": "some-df"
      }
    }
  },
  "default_template": "portrait"
}
)";

std::string replaced(const std::string& from, const std::string& to) {
  std::string text = kGood;
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string error_of(const std::string& text) {
  const auto read = parse_templates(text, "templates.json");
  return read.ok() ? "" : read.error().message;
}

TEST(Templates, ReadsEveryField) {
  const auto read = parse_templates(kGood, "t.json");
  ASSERT_TRUE(read.ok()) << read.error().message;
  const Template portrait = read->find("").value();
  EXPECT_EQ(portrait.key, "portrait");
  EXPECT_EQ(portrait.checkpoint.filename, "some_mix.safetensors");
  ASSERT_EQ(portrait.loras.size(), 2u);
  EXPECT_EQ(portrait.loras[0].filename, "detail.safetensors");  // from the URL
  EXPECT_EQ(portrait.loras[0].scale, 1.5);
  EXPECT_EQ(portrait.loras[1].scale, 1.0);
  EXPECT_EQ(portrait.defaults.steps, 24);
  EXPECT_EQ(portrait.defaults.guidance_scale, 4.5);
  EXPECT_EQ(portrait.defaults.prompt_prefix, "photo");
  EXPECT_EQ(portrait.model_dir(), "portrait-merged-df");
  EXPECT_EQ(read->find("plain")->model_dir(), "some-df");
}

TEST(Templates, NamesEachFileOnce) {
  const auto read = parse_templates(kGood, "t.json");
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->unique_checkpoints().size(), 1u);
  EXPECT_EQ(read->unique_loras().size(), 2u);
}

TEST(Templates, ErrorsNameTheLine) {
  EXPECT_EQ(error_of(replaced("\"scale\": 1.5", "\"scale\": \"much\"")),
            "templates.json: line 16: templates.portrait.loras.0.scale: \"scale\" wants a number "
            "from -100 to 100");
  EXPECT_NE(error_of(replaced("\"name\": \"Light\"", "\"nam\": \"Light\""))
                .find("line 18: templates.portrait.loras.1.nam: the field \"nam\" is not known "
                      "(did you mean name?)"),
            std::string::npos);
  EXPECT_NE(error_of(replaced("\"some-df\"", "\"../etc\"")).find("line 10: "), std::string::npos);
  EXPECT_NE(
      error_of(replaced("\"default_template\": \"portrait\"", "\"default_template\": \"portrat\""))
          .find("line 31: default_template: there is no template \"portrat\" (did you mean "
                "portrait?)"),
      std::string::npos);
  // Broken JSON: the comma after line 4 is gone, which shows at the next text.
  EXPECT_NE(error_of(replaced("Portrait\",\n", "Portrait\"\n")).find("line 5: not valid JSON"),
            std::string::npos);
  // A number at the end of a line belongs to that line.
  EXPECT_NE(error_of(replaced("\"steps\": 24,", "\"steps\": 0\n,")).find("line 20: "),
            std::string::npos);
}

TEST(Templates, ReportsAllMistakesAtOnceByLine) {
  std::string text = replaced("\"scale\": 1.5", "\"scale\": \"much\"");
  text.replace(text.find("\"steps\": 24"), 11, "\"steps\": -1");
  const std::string error = error_of(text);
  EXPECT_LT(error.find("line 16"), error.find("line 20"));
  EXPECT_NE(error.find("line 20"), std::string::npos);
}

TEST(Templates, RefusesWhatWouldLeaveItsFolderOrNameTwoThings) {
  for (const char* name : {"../x.safetensors", "/x.safetensors", "a/b.safetensors",
                           ".x.safetensors", "x.ckpt", "", "x y.safetensors"}) {
    EXPECT_NE(error_of(replaced("light.safetensors", name)), "") << name;
  }
  EXPECT_NE(error_of(replaced("\"plain\": {", "\"pl/ain\": {")), "");
  EXPECT_NE(error_of(replaced("https://models.example/x", "file:///etc/passwd")), "");
  // One file name, two URLs.
  EXPECT_NE(error_of(replaced("\"light.safetensors\"", "\"some_mix.safetensors\""))
                .find("is also that of line"),
            std::string::npos);
  EXPECT_NE(error_of(replaced("\"some-df\"", "\"portrait-merged-df\"")), "");
}

TEST(Templates, RefusesBrokenDocuments) {
  for (const char* text : {"", "[]", "{}", "{\"templates\": []}", "null", "{\"templates\": {}} x",
                           "{\"templates\": {}, \"templates\": {}}", "\xff{}"}) {
    EXPECT_NE(error_of(text), "") << text;
  }
  EXPECT_NE(error_of(std::string("{\"templates\": {}}\0", 18)), "");
  EXPECT_NE(error_of(std::string(100, '[')), "");
  EXPECT_EQ(error_of("{\"templates\": {}}"), "");
}

class Store : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "limner-templates-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path file() const { return folder_ / "templates.json"; }
  // Each content gets a later time, whatever the clock's grain.
  void write(const std::string& text) {
    std::ofstream(file(), std::ios::binary) << text;
    fs::last_write_time(file(), fs::file_time_type::clock::now() + std::chrono::seconds(++age_));
  }

  fs::path folder_;
  int age_ = 0;
};

TEST_F(Store, ReloadsWhenTheFileChanges) {
  write(kGood);
  auto store = TemplateStore::open(file());
  ASSERT_TRUE(store.ok());
  EXPECT_EQ((*store)->refresh().value(), TemplateStore::Refresh::kUnchanged);
  const auto before = (*store)->current();
  write("{\"templates\": {}}");
  EXPECT_EQ((*store)->refresh().value(), TemplateStore::Refresh::kReloaded);
  EXPECT_EQ((*store)->current()->by_key.size(), 0u);
  EXPECT_EQ(before->by_key.size(), 2u);  // whoever holds the old ones keeps them
}

TEST_F(Store, KeepsTheOldOnesWhenTheNewFileIsBrokenAndSaysSoOnce) {
  write(kGood);
  auto store = TemplateStore::open(file());
  ASSERT_TRUE(store.ok());
  write("{\n\"templates\": {},\n}");
  const auto broken = (*store)->refresh();
  ASSERT_FALSE(broken.ok());
  EXPECT_NE(broken.error().message.find("line 3"), std::string::npos) << broken.error().message;
  EXPECT_EQ((*store)->current()->by_key.size(), 2u);
  EXPECT_TRUE((*store)->refresh().ok());
  EXPECT_FALSE((*store)->reload().ok());
  fs::remove(file());
  EXPECT_FALSE((*store)->refresh().ok());
  EXPECT_EQ((*store)->current()->by_key.size(), 2u);
  write(kGood);
  EXPECT_EQ((*store)->refresh().value(), TemplateStore::Refresh::kReloaded);
}

TEST_F(Store, FailsWithoutAGoodFile) {
  EXPECT_EQ(TemplateStore::open(file()).error().code, ErrorCode::kNotFound);
  write("{");
  EXPECT_EQ(TemplateStore::open(file()).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(Store, WaitsForAFileThatMayComeLater) {
  auto store = TemplateStore::open_or_wait(file());
  ASSERT_TRUE(store.ok());
  EXPECT_TRUE((*store)->current()->by_key.empty());
  EXPECT_EQ((*store)->refresh().value(), TemplateStore::Refresh::kUnchanged);
  EXPECT_EQ((*store)->reload().error().code, ErrorCode::kNotFound);
  write(kGood);
  EXPECT_EQ((*store)->refresh().value(), TemplateStore::Refresh::kReloaded);
  EXPECT_EQ((*store)->current()->by_key.size(), 2u);
  write("{");
  EXPECT_FALSE(TemplateStore::open_or_wait(file()).ok());
}

TEST_F(Store, MayBeReadWhileItReloads) {
  write(kGood);
  auto store = TemplateStore::open(file());
  ASSERT_TRUE(store.ok());
  std::thread reader([&] {
    for (int i = 0; i < 1000; ++i) EXPECT_EQ((*store)->current()->by_key.size(), 2u);
  });
  for (int i = 0; i < 20; ++i) EXPECT_TRUE((*store)->reload().ok());
  reader.join();
}

}  // namespace
}  // namespace limner::platform
