#include "engine/lora/adapter_folders.h"

#include <gtest/gtest.h>

#include "engine/weights/testing.h"

namespace limner::engine::lora {
namespace {

namespace fs = std::filesystem;
using weights::testing::TemporaryFolder;

TEST(AdapterFolders, TheFirstFolderThatHasANameWins) {
  const TemporaryFolder folder;
  folder.write("a/style.safetensors", "1");
  folder.write("b/style.safetensors", "22");
  folder.write("b/deep/er/moon.safetensors", "333");
  folder.write("b/notes.txt", "no adapter");
  const AdapterFolders folders({folder.path() / "none", folder.path() / "a", folder.path() / "b"});
  const auto list = folders.list();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].name, "moon");
  EXPECT_EQ(list[0].bytes, 3u);
  EXPECT_EQ(*folders.find("style"), folder.path() / "a/style.safetensors");
}

TEST(AdapterFolders, AFileDroppedInIsFoundAtTheNextUse) {
  const TemporaryFolder folder;
  const AdapterFolders folders({folder.path()});
  EXPECT_FALSE(folders.find("late").ok());
  folder.write("late.safetensors", "1");
  EXPECT_TRUE(folders.find("late").ok());
}

TEST(AdapterFolders, NamesAreMadeOfLettersDigitsDotsLinesAndStayTheSame) {
  const TemporaryFolder folder;
  folder.write("My LoRA (v2.1).safetensors", "1");
  const AdapterFolders folders({folder.path()});
  EXPECT_EQ(folders.list().front().name, "My_LoRA__v2.1_");
  EXPECT_TRUE(folders.find("My_LoRA__v2.1_").ok());
  EXPECT_TRUE(folders.find("My LoRA (v2.1)").ok());
}

TEST(AdapterFolders, ANameCannotLeaveTheFolders) {
  const TemporaryFolder folder;
  folder.write("secret.safetensors", "1");
  folder.write("loras/x.safetensors", "1");
  fs::create_directory_symlink(folder.path(), folder.path() / "loras" / "up");
  const AdapterFolders folders({folder.path() / "loras"});
  for (const std::string& name :
       {std::string("../secret"), (folder.path() / "secret").string(), std::string(".."),
        std::string("up/secret"), std::string("..\\secret"), std::string("a\0b", 3),
        std::string(500, 'a'), std::string()}) {
    const auto found = folders.find(name);
    ASSERT_FALSE(found.ok()) << name;
    EXPECT_EQ(found.error().code, ErrorCode::kInvalidArgument) << name;
  }
  EXPECT_EQ(folders.find("secret").error().code, ErrorCode::kNotFound);
}

TEST(AdapterFolders, APathMayBeGivenWhereTheCallerAllowsIt) {
  const TemporaryFolder folder;
  const fs::path file = folder.write("secret.safetensors", "1");
  const AdapterFolders folders({folder.path() / "none"});
  EXPECT_EQ(*folders.find_path_or_name(file.string()), file);
  EXPECT_EQ(folders.find_path_or_name("no/such.safetensors").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace limner::engine::lora
