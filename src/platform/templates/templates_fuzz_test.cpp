// Structure-aware fuzzing of templates.json: good documents are damaged as careless and hostile
// hands do, and read. Whatever is accepted must hold what templates.h promises. Deterministic;
// LIMNER_FUZZ_SECONDS makes it run longer and LIMNER_FUZZ_SEED start elsewhere.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <random>
#include <string>

#include "platform/templates/templates.h"

namespace limner::platform {
namespace {

double setting(const char* name, double fallback) {
  const char* text = std::getenv(name);
  return text ? std::atof(text) : fallback;
}

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::string document() {
    std::string text = "{\n\"templates\": {\n";
    const std::uint64_t count = below(4);
    for (std::uint64_t i = 0; i < count; ++i)
      text += fmt::format("{}\"t{}\": {}", i == 0 ? "" : ",\n", below(3 + i), entry());
    text += "\n}";
    if (below(2) == 0) text += fmt::format(",\n\"default_template\": \"t{}\"", below(4));
    text += "\n}\n";
    for (std::uint64_t n = below(4); n > 0; --n) damage(text);
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

  void damage(std::string& text) {
    if (text.empty()) return;
    const std::size_t at = below(text.size());
    switch (below(6)) {
      case 0:
        text.erase(at, 1 + below(9));
        return;
      case 1:
        text[at] = static_cast<char>(below(256));
        return;
      case 2:
        text.resize(at);
        return;
      case 3:
        text.insert(at, text.substr(below(text.size()), below(40)));
        return;
      case 4:
        text.insert(at, std::string(below(60), "[{\n\""[below(4)]));
        return;
      default:
        text.insert(at, number());
        return;
    }
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

TEST(TemplatesFuzz, DamagedDocumentsAreReadOrRefused) {
  const auto begin = std::chrono::steady_clock::now();
  const double seconds = setting("LIMNER_FUZZ_SECONDS", 0);
  auto seed = static_cast<std::uint64_t>(setting("LIMNER_FUZZ_SEED", 1));
  for (int i = 0; i < 4000 ||
                  std::chrono::steady_clock::now() - begin < std::chrono::duration<double>(seconds);
       ++i, ++seed) {
    check(Generator(seed).document());
    if (HasFailure()) FAIL() << "seed " << seed;
  }
}

}  // namespace
}  // namespace limner::platform
