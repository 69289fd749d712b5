#include "engine/lora/adapter_hash.h"

#include <gtest/gtest.h>

#include "engine/weights/testing.h"

namespace limner::engine::lora {
namespace {

using weights::testing::raw_safetensors;
using weights::testing::TemporaryFolder;

// "abc": the first vector of FIPS 180-4.
TEST(AdapterHash, IsTheStartOfTheSha256OfWhatFollowsTheHeader) {
  const TemporaryFolder folder;
  const auto plain = folder.write("a.safetensors", raw_safetensors("{}", "abc"));
  const auto noted = folder.write("b.safetensors",
                                  raw_safetensors(R"({"__metadata__":{"note":"another"}})", "abc"));
  EXPECT_EQ(*short_hash(plain), "ba7816bf8f01");
  EXPECT_EQ(*short_hash(noted), "ba7816bf8f01");
}

TEST(AdapterHash, AFileCutOffInItsHeaderIsAnError) {
  const TemporaryFolder folder;
  const std::string whole = raw_safetensors("{\"a\": 1}", "");
  EXPECT_FALSE(short_hash(folder.write("a", whole.substr(0, 12))).ok());
  EXPECT_FALSE(short_hash(folder.write("b", "abc")).ok());
  EXPECT_FALSE(short_hash(folder.path() / "none").ok());
}

TEST(AdapterHash, NotesNameEachFileAndAChangedOneIsReadAnew) {
  const TemporaryFolder folder;
  AdapterHashes hashes;
  std::vector<std::filesystem::path> files = {
      folder.write("my style.safetensors", raw_safetensors("{}", "abc")),
      folder.path() / "gone.safetensors"};
  EXPECT_EQ(hashes.notes(files), (std::vector<std::string>{"my_style: ba7816bf8f01"}));
  folder.write("my style.safetensors", raw_safetensors("{}", ""));
  EXPECT_EQ(hashes.notes(files), (std::vector<std::string>{"my_style: e3b0c44298fc"}));
}

}  // namespace
}  // namespace limner::engine::lora
