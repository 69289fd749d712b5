#include "prompt/clip_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <unordered_map>

#include "prompt/byte_pairs.h"
#include "prompt/tokenizer_files.h"
#include "prompt/unicode.h"

namespace limner::prompt {
namespace {

using Characters = std::span<const Character>;

constexpr std::u32string_view kBeginMark = U"<|startoftext|>";
constexpr std::u32string_view kEndMark = U"<|endoftext|>";

bool starts_with(Characters text, std::u32string_view prefix) {
  return text.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), text.begin(),
                    [](char32_t want, const Character& got) { return want == got.code; });
}

// NFC, each run of white space to one space, lower case: in that order.
std::vector<Character> normalize(Characters text) {
  std::vector<Character> composed = compose({text.begin(), text.end()});
  std::vector<Character> collapsed;
  collapsed.reserve(composed.size());
  bool in_space = false;
  for (Character character : composed) {
    const bool space = character_class(character.code) == CharacterClass::kSpace;
    if (space && in_space) {
      collapsed.back().end = character.end;
      continue;
    }
    if (space) character.code = ' ';
    collapsed.push_back(character);
    in_space = space;
  }
  return lower_case(collapsed);
}

// Finds whole tokens in a text: the leftmost, and of those the longest.
class TokenFinder {
 public:
  struct Pattern {
    std::u32string text;
    std::int32_t id;
    bool strip_left;
    bool strip_right;
  };

  void add(Pattern pattern) {
    if (pattern.text.empty()) return;
    auto& bucket = by_first_[pattern.text.front()];
    bucket.push_back(std::move(pattern));
    std::stable_sort(bucket.begin(), bucket.end(), [](const Pattern& a, const Pattern& b) {
      return a.text.size() > b.text.size();
    });
  }

  // Calls rest(characters) for what lies between tokens and found(id, characters) for each token,
  // in order.
  template <typename Rest, typename Found>
  void split(Characters text, Rest rest, Found found) const {
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      const Pattern* pattern = match(text.subspan(at));
      if (!pattern) {
        ++at;
        continue;
      }
      std::size_t begin = at;
      std::size_t end = at + pattern->text.size();
      while (pattern->strip_left && begin > done && is_space(text[begin - 1])) --begin;
      while (pattern->strip_right && end < text.size() && is_space(text[end])) ++end;
      if (begin > done) rest(text.subspan(done, begin - done));
      found(pattern->id, text.subspan(begin, end - begin));
      done = at = end;
    }
    if (done < text.size()) rest(text.subspan(done));
  }

 private:
  static bool is_space(const Character& character) {
    return character_class(character.code) == CharacterClass::kSpace;
  }

  const Pattern* match(Characters text) const {
    const auto bucket = by_first_.find(text.front().code);
    if (bucket == by_first_.end()) return nullptr;
    for (const Pattern& pattern : bucket->second) {
      if (starts_with(text, pattern.text)) return &pattern;
    }
    return nullptr;
  }

  std::unordered_map<char32_t, std::vector<Pattern>> by_first_;
};

// The length of the contraction ('s 't 're 've 'm 'll 'd) at the start of `text`, or 0.
std::size_t contraction(Characters text) {
  for (const std::u32string_view ending : {U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"}) {
    if (starts_with(text, ending)) return ending.size();
  }
  return 0;
}

// Calls word(characters) for each word of normalised text: a contraction, a run of letters, one
// number, or a run of what is none of these nor white space. Both marks are words of their own,
// which the byte-level step then cuts into their brackets and their letters.
template <typename Word>
void for_each_word(Characters text, Word word) {
  const auto run = [&](std::size_t from, CharacterClass wanted) {
    std::size_t end = from + 1;
    while (end < text.size() && character_class(text[end].code) == wanted) ++end;
    return end;
  };
  for (std::size_t at = 0; at < text.size();) {
    const Characters here = text.subspan(at);
    const char32_t first = here.front().code;
    bool mark = false;
    for (const std::u32string_view name : {kBeginMark, kEndMark}) {
      if (mark || first != '<' || !starts_with(here, name)) continue;
      mark = true;
      word(here.subspan(0, 2));
      word(here.subspan(2, name.size() - 4));
      word(here.subspan(name.size() - 2, 2));
      at += name.size();
    }
    if (mark) continue;
    std::size_t end = at + 1;
    if (const std::size_t length = first == '\'' ? contraction(here) : 0; length != 0) {
      end = at + length;
    } else {
      const CharacterClass kind = character_class(first);
      if (kind == CharacterClass::kSpace) {
        ++at;
        continue;
      }
      if (kind != CharacterClass::kNumber) end = run(at, kind);
    }
    word(text.subspan(at, end - at));
    at = end;
  }
}

}  // namespace

struct ClipTokenizer::State {
  explicit State(const TokenizerFiles& files)
      : pairs(files.vocabulary, files.merges, files.unknown_id),
        begin_id(files.begin_id),
        end_id(files.end_id),
        pad_id(files.pad_id),
        max_length(files.max_length),
        vocabulary_size(files.vocabulary_size) {
    for (const AddedToken& token : files.added) {
      const std::vector<Character> typed = decode_utf8(token.content).value_or_throw();
      std::u32string text;
      for (const Character& character : token.normalized ? normalize(typed) : typed) {
        text.push_back(character.code);
      }
      (token.normalized ? in_normalized : in_typed)
          .add({std::move(text), token.id, token.strip_left, token.strip_right});
    }
  }

  std::vector<Token> tokenize(std::string_view text) const {
    const std::vector<Character> characters = decode_utf8(text).value_or_throw();
    std::vector<Token> tokens;
    const auto found = [&](std::int32_t id, Characters where) {
      tokens.push_back({id, where.front().begin, where.back().end});
    };
    std::string bytes;
    std::vector<Character> owners;  // of each byte of the word
    std::vector<BytePairs::Piece> pieces;
    const auto word = [&](Characters where) {
      bytes.clear();
      owners.clear();
      pieces.clear();
      for (const Character& character : where) {
        append_utf8(character.code, bytes);
        owners.resize(bytes.size(), character);
      }
      pairs.split(bytes, pieces);
      for (const auto& piece : pieces) {
        tokens.push_back({piece.id, owners[piece.begin].begin, owners[piece.end - 1].end,
                          piece.end == bytes.size()});
      }
    };
    in_typed.split(
        characters,
        [&](Characters rest) {
          const std::vector<Character> normal = normalize(rest);
          in_normalized.split(normal, [&](Characters plain) { for_each_word(plain, word); }, found);
        },
        found);
    return tokens;
  }

  BytePairs pairs;
  TokenFinder in_typed;
  TokenFinder in_normalized;
  std::int32_t begin_id;
  std::int32_t end_id;
  std::int32_t pad_id;
  std::size_t max_length;
  std::size_t vocabulary_size;
};

Result<ClipTokenizer> ClipTokenizer::load(const std::filesystem::path& folder) {
  try {
    return ClipTokenizer(std::make_unique<State>(read_tokenizer_files(folder)));
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<std::vector<ClipTokenizer::Token>> ClipTokenizer::tokenize(std::string_view text) const {
  try {
    return state_->tokenize(text);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<ClipTokenizer::Encoding> ClipTokenizer::encode(std::string_view text) const {
  auto tokens = tokenize(text);
  if (!tokens) return tokens.error();
  const std::size_t room = state_->max_length - 2;
  const std::size_t kept = std::min(room, tokens->size());
  Encoding encoding;
  encoding.ids.reserve(state_->max_length);
  encoding.ids.push_back(state_->begin_id);
  for (std::size_t i = 0; i < kept; ++i) encoding.ids.push_back((*tokens)[i].id);
  encoding.ids.push_back(state_->end_id);
  encoding.ids.resize(state_->max_length, state_->pad_id);
  if (kept < tokens->size()) {
    // Combining marks out of order make tokens whose ranges are not in order either.
    std::size_t begin = text.size();
    std::size_t end = 0;
    for (std::size_t i = kept; i < tokens->size(); ++i) {
      begin = std::min(begin, (*tokens)[i].begin);
      end = std::max(end, (*tokens)[i].end);
    }
    encoding.cut = std::string(text.substr(begin, end - begin));
  }
  return encoding;
}

std::int32_t ClipTokenizer::begin_id() const {
  return state_->begin_id;
}
std::int32_t ClipTokenizer::end_id() const {
  return state_->end_id;
}
std::int32_t ClipTokenizer::pad_id() const {
  return state_->pad_id;
}
std::size_t ClipTokenizer::max_length() const {
  return state_->max_length;
}
std::size_t ClipTokenizer::vocabulary_size() const {
  return state_->vocabulary_size;
}

ClipTokenizer::ClipTokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
ClipTokenizer::ClipTokenizer(ClipTokenizer&&) noexcept = default;
ClipTokenizer& ClipTokenizer::operator=(ClipTokenizer&&) noexcept = default;
ClipTokenizer::~ClipTokenizer() = default;

}  // namespace limner::prompt
