#include "cli/prompt_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace limner::cli {
namespace {

namespace fs = std::filesystem;

class PromptFile : public testing::Test {
 protected:
  void TearDown() override { fs::remove(file_); }
  Result<std::vector<PromptLine>> read(std::string_view text) {
    std::ofstream(file_, std::ios::binary) << text;
    return read_prompt_file(file_);
  }
  const fs::path file_ =
      fs::temp_directory_path() / ("limner_prompts_" + std::to_string(getpid()) + ".txt");
};

TEST_F(PromptFile, HasOnePromptPerLineWithItsNumber) {
  const auto prompts = read("\xef\xbb\xbf  a cat <lora:style:0.5>\r\n\n \t\n# a dog (big:1.2)");
  ASSERT_TRUE(prompts.ok()) << prompts.error().message;
  ASSERT_EQ(prompts->size(), 2u);
  EXPECT_EQ((*prompts)[0].text, "a cat <lora:style:0.5>");
  EXPECT_EQ((*prompts)[0].line, 1u);
  EXPECT_EQ((*prompts)[1].text, "# a dog (big:1.2)");
  EXPECT_EQ((*prompts)[1].line, 4u);
}

TEST_F(PromptFile, OneThatHoldsNothingOrTooMuchIsRefusedByName) {
  EXPECT_NE(read(" \n\n").error().message.find(file_.string() + " holds no prompt"),
            std::string::npos);
  std::string many;
  for (int i = 0; i < 1001; ++i) many += "x\n";
  EXPECT_EQ(read(many).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(read(many.substr(2)).value_or_throw().size(), 1000u);
  EXPECT_EQ(read_prompt_file(fs::temp_directory_path()).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(read_prompt_file("/nowhere/at/all").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace limner::cli
