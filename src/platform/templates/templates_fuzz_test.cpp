// Structure-aware fuzzing of templates.json: good documents are damaged as careless and hostile
// hands do, and read. Whatever is accepted must hold what templates.h promises. Deterministic;
// LIMNER_FUZZ_SECONDS makes it run longer and LIMNER_FUZZ_SEED start elsewhere.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iterator>
#include <random>
#include <string>

#include "base/fuzzing.h"
#include "platform/templates/templates.h"

namespace limner::platform {
namespace {

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  static constexpr const char* kPieces[] = {"[",  "{",     "\n", "\"", "0",
                                            "-1", "1e400", ",",  "]",  "}"};

  // One of the corpus with wounds.
  std::string damaged(const std::vector<std::pair<std::filesystem::path, std::string>>& corpus) {
    std::string text = corpus[below(corpus.size())].second;
    for (std::uint64_t n = 1 + below(3); n > 0; --n) fuzzing::damage(text, random_, kPieces);
    return text;
  }

  std::string document() {
    std::string text = "{\n\"templates\": {\n";
    const std::uint64_t count = below(4);
    for (std::uint64_t i = 0; i < count; ++i)
      text += fmt::format("{}\"t{}\": {}", i == 0 ? "" : ",\n", below(3 + i), entry());
    text += "\n}";
    if (below(2) == 0) text += fmt::format(",\n\"default_template\": \"t{}\"", below(4));
    text += "\n}\n";
    for (std::uint64_t n = below(4); n > 0; --n) fuzzing::damage(text, random_, kPieces);
    return text;
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

  static std::string quoted(std::string_view text) { return fmt::format("\"{}\"", text); }

  std::string word() {
    static const char* const kWords[] = {"a.safetensors",
                                         "b.safetensors",
                                         "../c.safetensors",
                                         "df",
                                         "https://x.y/a.safetensors",
                                         "http://x/",
                                         "",
                                         "\\u0000",
                                         "epsilon",
                                         "t0-merged-df",
                                         "\xff\xfe",
                                         "\\ud800",
                                         "ä.safetensors",
                                         "x/y"};
    return quoted(kWords[below(std::size(kWords))]);
  }

  std::string number() {
    static const char* const kNumbers[] = {
        "0", "1", "-1", "1.5", "1e400", "-0", "512", "1e18", "NaN", "01", "9223372036854775808"};
    return kNumbers[below(std::size(kNumbers))];
  }

  std::string entry() {
    std::string text =
        fmt::format("{{\"checkpoint\": {{\"url\": {}, \"filename\": {},\n\"diffusers_dir\": {}}}",
                    word(), word(), word());
    if (below(2) == 0) {
      text += ",\n\"loras\": [";
      for (std::uint64_t n = below(3), i = 0; i < n; ++i) {
        text += fmt::format("{}{{\"filename\": {}, \"scale\": {}}}", i == 0 ? "" : ", ", word(),
                            number());
      }
      text += "]";
    }
    if (below(2) == 0)
      text += fmt::format(",\n\"defaults\": {{\"steps\": {}, \"width\": {}}}", number(), number());
    text += "}";
    return text;
  }

  std::mt19937_64 random_;
};

bool is_plain(const std::string& name) {
  return !name.empty() && name[0] != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

void check(const std::string& text) {
  const auto read = parse_templates(text, "t.json");
  if (!read.ok()) {
    EXPECT_EQ(read.error().code, ErrorCode::kInvalidArgument);
    EXPECT_TRUE(read.error().message.starts_with("t.json: ")) << read.error().message;
    return;
  }
  if (!read->default_template.empty()) {
    EXPECT_TRUE(read->find("").ok());
  }
  for (const auto& [key, made] : read->by_key) {
    EXPECT_TRUE(is_plain(key) && is_plain(made.model_dir())) << text;
    EXPECT_TRUE(is_plain(made.checkpoint.filename) && is_plain(made.checkpoint.diffusers_dir));
    for (const TemplateLora& lora : made.loras)
      EXPECT_TRUE(is_plain(lora.filename) && std::isfinite(lora.scale)) << text;
    if (made.defaults.steps) {
      EXPECT_GE(*made.defaults.steps, 1);
    }
  }
}

TEST(TemplatesFuzz, TheKeptCorpusIsReadOrRefused) {
  for (const auto& [file, text] : fuzzing::corpus("templates")) {
    SCOPED_TRACE(file);
    check(text);
  }
}

TEST(TemplatesFuzz, DamagedDocumentsAreReadOrRefused) {
  const auto corpus = fuzzing::corpus("templates");
  fuzzing::run(1, [&](std::uint64_t seed) {
    Generator generator(seed);
    check(generator.document());
    check(generator.damaged(corpus));
  });
}

}  // namespace
}  // namespace limner::platform
