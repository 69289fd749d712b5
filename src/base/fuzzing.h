// For fuzz tests (FooFuzz in foo_fuzz_test.cpp): how long they run, from which seed, the kept
// corpus, and damage as careless and hostile hands do it. Everything follows from a seed.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

// Sanitizers have it: called before they end the program.
extern "C" void __sanitizer_set_death_callback(void (*callback)()) __attribute__((weak));

namespace limner::fuzzing {

inline double setting(const char* name, double otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::atof(text) : otherwise;
}

inline std::uint64_t current_seed = 0;

// body(seed) with seeds counted up from LIMNER_FUZZ_SEED (1) for LIMNER_FUZZ_SECONDS, else
// `seconds`; ends when the test has failed. Whatever goes wrong, the seed is printed. Returns the
// runs.
template <typename Body>
std::uint64_t run(double seconds, const Body& body) {
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback([] {
      std::fprintf(stderr, "LIMNER_FUZZ_SEED=%llu\n",
                   static_cast<unsigned long long>(current_seed));
    });
  }
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::duration<double>(setting("LIMNER_FUZZ_SECONDS", seconds));
  current_seed = static_cast<std::uint64_t>(setting("LIMNER_FUZZ_SEED", 1));
  std::uint64_t runs = 0;
  while (std::chrono::steady_clock::now() < end) {
    // The clock costs more than a small body.
    for (int i = 0; i < 16; ++i, ++runs, ++current_seed) {
      body(current_seed);
      if (!testing::Test::HasFailure()) continue;
      ADD_FAILURE() << "LIMNER_FUZZ_SEED=" << current_seed;
      return runs;
    }
  }
  std::printf("%llu runs\n", static_cast<unsigned long long>(runs));
  return runs;
}

// The files of tests/corpora/NAME: beginnings for the fuzzer, and every input that once went wrong.
inline std::vector<std::pair<std::filesystem::path, std::string>> corpus(const std::string& name) {
  const std::filesystem::path folder =
      std::filesystem::path(LIMNER_SOURCE_DIR) / "tests/corpora" / name;
  std::vector<std::pair<std::filesystem::path, std::string>> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    files.emplace_back(entry.path(), std::string(std::istreambuf_iterator<char>(in), {}));
  }
  EXPECT_FALSE(files.empty()) << folder;
  std::sort(files.begin(), files.end());
  return files;
}

// One wound: bytes lost, changed, doubled, or one of `pieces` put in.
inline void damage(std::string& text, std::mt19937_64& random,
                   std::span<const char* const> pieces) {
  const auto below = [&](std::size_t bound) { return random() % bound; };
  const std::size_t at = below(text.size() + 1);
  switch (below(6)) {
    case 0:
      text.erase(at, 1 + below(9));
      return;
    case 1:
      if (at < text.size()) text[at] = static_cast<char>(below(256));
      return;
    case 2:
      text.resize(at);
      return;
    case 3:
      text.insert(at, text.substr(below(text.size() + 1), below(40)));
      return;
    case 4: {
      const std::string piece = pieces[below(pieces.size())];
      for (std::size_t n = 1 + below(20); n > 0; --n) text.insert(at, piece);
      return;
    }
    default:
      text.insert(at, pieces[below(pieces.size())]);
  }
}

// check(text) of beginnings from corpus `name` with one to four wounds each.
template <typename Check>
void run_damaged(const std::string& name, std::span<const char* const> pieces, const Check& check) {
  const auto beginnings = corpus(name);
  run(1, [&](std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string text = beginnings[random() % beginnings.size()].second;
    for (std::uint64_t n = 1 + random() % 4; n > 0; --n) damage(text, random, pieces);
    check(text);
  });
}

}  // namespace limner::fuzzing
