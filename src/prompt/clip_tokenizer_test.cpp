#include "prompt/clip_tokenizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/utf8.h"

namespace limner::prompt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const fs::path kFixtures = fs::path(LIMNER_SOURCE_DIR) / "tests/parity/fixtures/tokenizer";

std::string read(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream.good()) << path;
  return {std::istreambuf_iterator<char>(stream), {}};
}

// A tokenizer folder of its own for one test.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "limner-tokenizer-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const fs::path& path() const { return path_; }
  Folder& write(const std::string& name, const std::string& text) {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return *this;
  }
  Folder& copy(const fs::path& from) {
    fs::copy(from, path_, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    return *this;
  }

 private:
  fs::path path_;
};

ClipTokenizer load(const fs::path& folder) {
  auto tokenizer = ClipTokenizer::load(folder);
  EXPECT_TRUE(tokenizer.ok()) << (tokenizer.ok() ? "" : tokenizer.error().message);
  return std::move(tokenizer).value();
}

std::vector<std::int32_t> ids(const ClipTokenizer& tokenizer, const std::string& text) {
  const auto tokens = tokenizer.tokenize(text);
  EXPECT_TRUE(tokens.ok()) << tokens.error().message;
  std::vector<std::int32_t> out;
  for (const auto& token : *tokens) out.push_back(token.id);
  return out;
}

bool is_ascii(const std::string& text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0; });
}

// Compares with the ids transformers gave; a build without ICU is held to the ASCII texts.
void expect_same_ids(const fs::path& cases, const ClipTokenizer& tokenizer,
                     const std::string& key) {
  const bool all = tokenizer.tokenize("é").ok();
  std::ifstream stream(cases);
  std::size_t compared = 0, wrong = 0;
  for (std::string line; std::getline(stream, line);) {
    const Json entry = Json::parse(line);
    const auto text = entry["text"].get<std::string>();
    if (!all && !is_ascii(text)) continue;
    ++compared;
    if (ids(tokenizer, text) != entry[key].get<std::vector<std::int32_t>>() && ++wrong <= 10) {
      ADD_FAILURE() << key << ": " << entry["text"].dump(-1, ' ', true) << " gave "
                    << Json(ids(tokenizer, text)) << ", want " << entry[key];
    }
  }
  EXPECT_EQ(wrong, 0u) << "of " << compared;
  EXPECT_GT(compared, 50u);
}

Folder& padded(Folder& folder) {
  return folder.copy(kFixtures / "parts")
      .write("tokenizer_config.json", read(kFixtures / "padded_config.json"));
}

TEST(ClipTokenizer, EqualsTransformersFromVocabularyAndMerges) {
  expect_same_ids(kFixtures / "cases.jsonl", load(kFixtures / "parts"), "plain");
}

TEST(ClipTokenizer, EqualsTransformersFromTokenizerJson) {
  expect_same_ids(kFixtures / "cases.jsonl", load(kFixtures / "single"), "plain");
}

TEST(ClipTokenizer, ReadsMergesOfTokenizerJsonAsTextsAndAsPairs) {
  Json file = Json::parse(read(kFixtures / "single/tokenizer.json"));
  ASSERT_TRUE(file["model"]["merges"][0].is_array());
  for (Json& merge : file["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  Folder folder;
  folder.copy(kFixtures / "parts")
      .write("merges.txt", "broken")
      .write("tokenizer.json", file.dump());
  expect_same_ids(kFixtures / "cases.jsonl", load(folder.path()), "plain");
}

TEST(ClipTokenizer, FindsThePadTokenInTheTextAsTransformersDoes) {
  Folder folder;
  const ClipTokenizer tokenizer = load(padded(folder).path());
  EXPECT_NE(tokenizer.pad_id(), tokenizer.end_id());
  EXPECT_EQ(ids(tokenizer, "!!"), std::vector<std::int32_t>(2, tokenizer.pad_id()));
  expect_same_ids(kFixtures / "cases.jsonl", tokenizer, "padded");
}

// tools/parity/tokenizer_fixtures.py --random N FILE makes the file.
TEST(ClipTokenizer, EqualsTransformersOnALargeFileOfCases) {
  const char* file = std::getenv("LIMNER_TOKENIZER_CASES");
  if (!file) GTEST_SKIP() << "LIMNER_TOKENIZER_CASES names no file";
  Folder folder;
  expect_same_ids(file, load(kFixtures / "parts"), "plain");
  expect_same_ids(file, load(padded(folder).path()), "padded");
}

TEST(ClipTokenizer, EncodesToItsMaximumLengthWithItsOwnPadding) {
  Folder folder;
  for (const ClipTokenizer& tokenizer : {load(kFixtures / "parts"), load(padded(folder).path())}) {
    const auto encoding = tokenizer.encode("a red circle");
    ASSERT_TRUE(encoding.ok());
    const auto tokens = ids(tokenizer, "a red circle");
    ASSERT_EQ(encoding->ids.size(), 77u);
    EXPECT_EQ(encoding->ids[0], tokenizer.begin_id());
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), encoding->ids.begin() + 1));
    EXPECT_EQ(encoding->ids[tokens.size() + 1], tokenizer.end_id());
    EXPECT_EQ(encoding->ids[tokens.size() + 2], tokenizer.pad_id());
    EXPECT_EQ(encoding->ids.back(), tokenizer.pad_id());
    EXPECT_EQ(encoding->cut, "");
  }
}

TEST(ClipTokenizer, NamesWhatItCutInTheWordsOfTheInput) {
  const ClipTokenizer tokenizer = load(kFixtures / "parts");
  std::string text;
  for (int i = 0; i < 75; ++i) text += "a ";
  EXPECT_EQ(tokenizer.encode(text)->cut, "");
  const auto encoding = tokenizer.encode(text + " A  RED ");
  EXPECT_EQ(encoding->cut, "A  RED");
  EXPECT_EQ(encoding->ids.size(), 77u);
  EXPECT_EQ(encoding->ids.back(), tokenizer.end_id());
}

TEST(ClipTokenizer, TokensPointIntoTheTextAsTyped) {
  const ClipTokenizer tokenizer = load(kFixtures / "parts");
  const std::string ascii = "A  Red\n\tCircle";
  const auto tokens = tokenizer.tokenize(ascii);
  ASSERT_EQ(tokens->size(), 3u);
  EXPECT_EQ((*tokens)[1].begin, 3u);
  EXPECT_EQ((*tokens)[1].end, 6u);
  EXPECT_EQ((*tokens)[2].begin, 8u);
  EXPECT_EQ((*tokens)[2].end, 14u);
  if (!tokenizer.tokenize("é").ok()) GTEST_SKIP() << "built without ICU";
  const auto composed =
      tokenizer.tokenize("e\u0301 b");  // e and an accent of two bytes become one character
  ASSERT_GE(composed->size(), 2u);
  EXPECT_EQ(composed->front().begin, 0u);
  EXPECT_EQ(composed->front().end, 3u);
  EXPECT_EQ(composed->back().begin, 4u);
}

TEST(ClipTokenizer, ReadsTheMaximumLength) {
  const auto length = [](const std::string& value) -> Result<std::size_t> {
    Folder folder;
    folder.copy(kFixtures / "parts")
        .write("tokenizer_config.json", "{\"model_max_length\": " + value + "}");
    auto tokenizer = ClipTokenizer::load(folder.path());
    if (!tokenizer) return tokenizer.error();
    return tokenizer->max_length();
  };
  EXPECT_EQ(length("16").value(), 16u);
  EXPECT_EQ(length("77").value(), 77u);
  EXPECT_EQ(length("1000000000000000019884624838656").value(), 77u);
  EXPECT_EQ(length("null").value(), 77u);
  for (const char* wrong : {"0", "-1", "2", "\"77\"", "[]"}) {
    EXPECT_EQ(length(wrong).error().code, ErrorCode::kInvalidModel) << wrong;
  }
}

TEST(ClipTokenizer, InvalidUtf8IsAnErrorWithItsOffset) {
  const ClipTokenizer tokenizer = load(kFixtures / "parts");
  const std::pair<std::string, std::size_t> cases[] = {
      {"abc\xff", 3},    {"\x80", 0},         {"a\xc3", 1},
      {"ab\xc0\xaf", 2}, {"\xed\xa0\x80", 0}, {"\xf4\x90\x80\x80", 0},
      {"a\xe2\x82", 1},  {"\xe0\x80\x80", 0}, {"\xf0\x80\x80\x80", 0},
      {"\xf5", 0},       {"a\xc3(", 1}};
  for (const auto& [text, offset] : cases) {
    const auto tokens = tokenizer.tokenize(text);
    ASSERT_FALSE(tokens.ok());
    EXPECT_EQ(tokens.error().code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(tokens.error().message.ends_with(fmt::format("offset {}", offset)))
        << tokens.error().message;
  }
}

struct BrokenFolder {
  const char* file;
  const char* text;
  ErrorCode code;
  const char* says;
};

TEST(ClipTokenizer, ABrokenFolderIsAClearError) {
  const BrokenFolder cases[] = {
      {"vocab.json", "", ErrorCode::kInvalidModel, "is not JSON"},
      {"vocab.json", "[]", ErrorCode::kInvalidModel, "want a JSON object, got array"},
      {"vocab.json", "{}", ErrorCode::kInvalidModel, "want a vocabulary"},
      {"vocab.json", "{\"a\": -1}", ErrorCode::kInvalidModel, "id of 'a', got -1"},
      {"vocab.json", "{\"a\": 1.5}", ErrorCode::kInvalidModel, "id of 'a', got 1.5"},
      {"vocab.json", "{\"a\": 99999999999}", ErrorCode::kInvalidModel, "id of 'a'"},
      {"vocab.json", "{\"a\": \"b\"}", ErrorCode::kInvalidModel, "id of 'a', got \"b\""},
      {"vocab.json", "{\"a\xff\": 1}", ErrorCode::kInvalidModel, "is not JSON"},
      {"vocab.json", "{\"a\": 1}", ErrorCode::kInvalidModel, "which is not in the vocabulary"},
      {"merges.txt", "#version: 0.2\na b c\n", ErrorCode::kInvalidModel, "merge line 2"},
      {"merges.txt", "ab\n", ErrorCode::kInvalidModel, "merge line 1"},
      {"merges.txt", "a \n", ErrorCode::kInvalidModel, "merge line 1"},
      {"merges.txt", "a qqqqq\n", ErrorCode::kInvalidModel, "needs 'qqqqq'"},
      {"tokenizer.json", "{", ErrorCode::kInvalidModel, "is not JSON"},
      {"tokenizer.json", "{}", ErrorCode::kInvalidModel, "want 'model'"},
      {"tokenizer.json", R"({"model": {"type": "Unigram", "vocab": {}, "merges": []}})",
       ErrorCode::kUnsupported, "got Unigram"},
      {"tokenizer.json", R"({"model": {"vocab": {"a": 0}, "merges": [["a"]]}})",
       ErrorCode::kInvalidModel, "merge 1"},
      {"tokenizer.json", R"({"model": {"vocab": {"a": 0}, "merges": 3}})", ErrorCode::kInvalidModel,
       "a list"},
      {"tokenizer.json",
       R"({"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 7, "content": "b"}]})",
       ErrorCode::kInvalidModel, "got 7"},
      {"tokenizer_config.json", R"({"pad_token": 3})", ErrorCode::kInvalidModel, "pad_token"},
      {"tokenizer_config.json", R"({"pad_token": ""})", ErrorCode::kInvalidModel,
       "want a pad_token"},
      {"tokenizer_config.json", R"({"pad_token": {"content": "!", "single_word": true}})",
       ErrorCode::kUnsupported, "single_word"},
      {"tokenizer_config.json", R"({"added_tokens_decoder": {"x": "!"}})", ErrorCode::kInvalidModel,
       "got 'x'"},
      {"added_tokens.json", R"({"<cat>": 5})", ErrorCode::kInvalidModel, "'<cat>'"},
  };
  for (const BrokenFolder& broken : cases) {
    Folder folder;
    folder.copy(kFixtures / "parts").write(broken.file, broken.text);
    const auto tokenizer = ClipTokenizer::load(folder.path());
    ASSERT_FALSE(tokenizer.ok()) << broken.file << " " << broken.text;
    EXPECT_EQ(tokenizer.error().code, broken.code) << tokenizer.error().message;
    EXPECT_NE(tokenizer.error().message.find(broken.says), std::string::npos)
        << tokenizer.error().message;
  }
}

TEST(ClipTokenizer, AMissingFileIsNamed) {
  EXPECT_EQ(ClipTokenizer::load("/no/such/folder").error().code, ErrorCode::kNotFound);
  Folder folder;
  EXPECT_EQ(ClipTokenizer::load(folder.path()).error().code, ErrorCode::kNotFound);
  folder.copy(kFixtures / "parts");
  fs::remove(folder.path() / "merges.txt");
  EXPECT_NE(ClipTokenizer::load(folder.path()).error().message.find("merges.txt is missing"),
            std::string::npos);
}

TEST(ClipTokenizer, ATokenAddedToTheVocabularyIsFoundWhole) {
  const auto size = static_cast<int>(load(kFixtures / "parts").vocabulary_size());
  Folder folder;
  folder.copy(kFixtures / "parts")
      .write("added_tokens.json", fmt::format("{{\"<Cat-Toy>\": {}}}", size));
  const ClipTokenizer tokenizer = load(folder.path());
  const auto tokens = tokenizer.tokenize("red<cat-TOY>red");
  ASSERT_EQ(tokens->size(), 3u);
  EXPECT_EQ((*tokens)[1].id, size);
  EXPECT_EQ((*tokens)[1].begin, 3u);
  EXPECT_EQ((*tokens)[1].end, 12u);
  EXPECT_EQ(static_cast<int>(tokenizer.vocabulary_size()), size + 1);
}

TEST(ClipTokenizer, AMegabyteTakesWellUnderASecond) {
  const ClipTokenizer tokenizer = load(kFixtures / "parts");
  std::string mixed(1 << 20, 'a');
  std::mt19937 draw(3);
  for (char& c : mixed) c = static_cast<char>('a' + draw() % 26);
  std::vector<std::string> texts = {std::string(1 << 20, 'a'), mixed, std::string(1 << 20, '<')};
  if (tokenizer.tokenize("é").ok()) {
    std::string marks = "a";  // of alternating class: an insertion sort would take hours
    for (int i = 0; i < (1 << 18); ++i) marks += "\u0301\u0316";
    texts.push_back(marks);
  }
  int number = 0;
  for (const std::string& text : texts) {
    const std::clock_t start = std::clock();
    const auto tokens = tokenizer.tokenize(text);
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    ASSERT_TRUE(tokens.ok());
    EXPECT_FALSE(tokens->empty());
    RecordProperty(fmt::format("seconds_{}", number++), fmt::format("{:.3f}", seconds));
    EXPECT_LT(seconds, 5.0) << "0.2 s is usual; sanitizers are slow";
  }
}

// Any bytes at all: an error with an offset, or tokens of the vocabulary that lie on character
// borders.
TEST(ClipTokenizer, SurvivesAnyBytes) {
  const ClipTokenizer tokenizer = load(kFixtures / "parts");
  const bool all = tokenizer.tokenize("é").ok();
  std::mt19937 draw(20);
  const std::string pieces[] = {"<|startoftext|>",
                                "<|endoftext|>",
                                "'s",
                                " ",
                                "\t\n",
                                "red",
                                "\u0301",
                                "İ",
                                "한",
                                "\U0001F600",
                                std::string(1, '\0'),
                                "\xff",
                                "\xe2\x82"};
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (auto length = draw() % 24; length > 0; --length) {
      const auto kind = draw() % 4;
      if (kind == 0) text += static_cast<char>(draw());
      if (kind == 1) text += static_cast<char>(draw() % 128);
      if (kind == 2) append_utf8(0x300 + draw() % 0x2000, text);
      if (kind == 3) text += pieces[draw() % std::size(pieces)];
    }
    const auto tokens = tokenizer.tokenize(text);
    if (!tokens.ok()) {
      const ErrorCode code = tokens.error().code;
      EXPECT_TRUE(code == ErrorCode::kInvalidArgument || (!all && code == ErrorCode::kUnsupported));
      continue;
    }
    for (const auto& token : *tokens) {
      ASSERT_LT(token.begin, token.end);
      ASSERT_LE(token.end, text.size());
      ASSERT_GE(token.id, 0);
      ASSERT_LT(static_cast<std::size_t>(token.id), tokenizer.vocabulary_size());
      ASSERT_NE(static_cast<unsigned char>(text[token.begin]) & 0xC0, 0x80);
    }
    ASSERT_EQ(tokenizer.encode(text)->ids.size(), 77u);
  }
}

}  // namespace
}  // namespace limner::prompt
