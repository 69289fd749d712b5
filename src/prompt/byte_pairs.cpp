#include "prompt/byte_pairs.h"

#include <fmt/format.h>

#include <queue>

#include "base/error.h"
#include "base/utf8.h"

namespace limner::prompt {
namespace {

constexpr std::string_view kEndOfWord = "</w>";

// A byte's stand-in in the vocabulary: itself where that is printable in Latin-1, else the next
// code point from 256 on (GPT-2's table).
std::array<std::string, 256> byte_symbols() {
  std::array<std::string, 256> symbols;
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
    append_utf8(printable ? byte : next++, symbols[byte]);
  }
  return symbols;
}

std::uint64_t key(std::int32_t left, std::int32_t right) {
  return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) |
         static_cast<std::uint32_t>(right);
}

std::int32_t id_of(const BytePairs::Vocabulary& vocabulary, const std::string& token,
                   std::size_t rank, const BytePairs::Merge& merge) {
  const auto found = vocabulary.find(token);
  if (found != vocabulary.end()) return found->second;
  throw Failure(
      ErrorCode::kInvalidModel,
      fmt::format(
          "[prompt.tokenizer] merge {} ('{} {}') needs '{}', which is not in the vocabulary",
          rank + 1, merge.first, merge.second, token));
}

}  // namespace

BytePairs::BytePairs(const Vocabulary& vocabulary, const std::vector<Merge>& merges,
                     std::int32_t unknown) {
  const auto symbols = byte_symbols();
  const auto lookup = [&](const std::string& token) {
    const auto found = vocabulary.find(token);
    return found == vocabulary.end() ? unknown : found->second;
  };
  for (std::size_t byte = 0; byte < 256; ++byte) {
    inside_[byte] = lookup(symbols[byte]);
    last_[byte] = lookup(symbols[byte] + std::string(kEndOfWord));
  }
  rules_.reserve(merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const std::int32_t left_id = id_of(vocabulary, left, rank, merges[rank]);
    const std::int32_t right_id = id_of(vocabulary, right, rank, merges[rank]);
    const std::int32_t merged = id_of(vocabulary, left + right, rank, merges[rank]);
    rules_.insert_or_assign(key(left_id, right_id), Rule{static_cast<std::int32_t>(rank), merged});
  }
}

const BytePairs::Rule* BytePairs::rule(std::int32_t left, std::int32_t right) const {
  const auto found = rules_.find(key(left, right));
  return found == rules_.end() ? nullptr : &found->second;
}

void BytePairs::split(std::string_view word, std::vector<Piece>& pieces) const {
  if (word.empty()) return;
  // A linked list over an array; a symbol merged into its left neighbour keeps id kGone.
  constexpr std::int32_t kGone = -1;
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  struct Symbol {
    std::int32_t id;
    std::size_t previous;
    std::size_t next;
    std::size_t end;
  };
  std::vector<Symbol> symbols(word.size());
  for (std::size_t i = 0; i < word.size(); ++i) {
    const auto byte = static_cast<unsigned char>(word[i]);
    const bool last = i + 1 == word.size();
    symbols[i] = {last ? last_[byte] : inside_[byte], i == 0 ? kNone : i - 1, last ? kNone : i + 1,
                  i + 1};
  }

  struct Candidate {
    std::int32_t rank;
    std::size_t left;
    std::int32_t merged;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](std::size_t left) {
    if (left == kNone || symbols[left].next == kNone) return;
    const Rule* found = rule(symbols[left].id, symbols[symbols[left].next].id);
    if (found) queue.push({found->rank, left, found->merged});
  };
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i) consider(i);

  while (!queue.empty()) {
    const Candidate candidate = queue.top();
    queue.pop();
    Symbol& left = symbols[candidate.left];
    if (left.id == kGone || left.next == kNone) continue;
    Symbol& right = symbols[left.next];
    const Rule* still = rule(left.id, right.id);
    if (!still || still->merged != candidate.merged) continue;  // an older pair stood here
    left.id = candidate.merged;
    left.end = right.end;
    left.next = right.next;
    right.id = kGone;
    if (left.next != kNone) symbols[left.next].previous = candidate.left;
    consider(left.previous);
    consider(candidate.left);
  }
  for (std::size_t i = 0; i != kNone; i = symbols[i].next) {
    pieces.push_back({symbols[i].id, i, symbols[i].end});
  }
}

}  // namespace limner::prompt
