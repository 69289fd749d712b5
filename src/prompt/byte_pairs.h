// BytePairs: the merge rules of a byte-level BPE vocabulary, over token ids.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace limner::prompt {

// Immutable after construction; safe to use from many threads at once.
class BytePairs {
 public:
  using Vocabulary = std::unordered_map<std::string, std::int32_t>;
  using Merge = std::pair<std::string, std::string>;

  // Merges in order of rank. A byte whose symbol is not in the vocabulary becomes `unknown`. Throws
  // Failure(kInvalidModel) when a merge, or what it makes, is not in the vocabulary.
  BytePairs(const Vocabulary& vocabulary, const std::vector<Merge>& merges, std::int32_t unknown);

  struct Piece {
    std::int32_t id = 0;
    std::size_t begin = 0;  // byte range in the word
    std::size_t end = 0;
  };

  // Appends the pieces of one word to `pieces`. O(n log n) in the length of the word: always the
  // lowest rank first, the leftmost among equals.
  void split(std::string_view word, std::vector<Piece>& pieces) const;

 private:
  struct Rule {
    std::int32_t rank;
    std::int32_t merged;
  };
  const Rule* rule(std::int32_t left, std::int32_t right) const;

  std::array<std::int32_t, 256> inside_;  // byte -> id
  std::array<std::int32_t, 256> last_;  // byte at the end of a word -> id of the symbol with "</w>"
  std::unordered_map<std::uint64_t, Rule> rules_;
};

}  // namespace limner::prompt
