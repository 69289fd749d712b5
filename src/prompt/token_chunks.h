// Tokens of a prompt of any length, in chunks that a text encoder takes.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "contract/prompt_options.h"
#include "prompt/clip_tokenizer.h"
#include "prompt/parsed_prompt.h"

namespace limner::prompt {

// Vectors in the place of tokens: a textual-inversion embedding, by its number, at a place in a
// chunk.
struct Insertion {
  std::size_t position = 0;   // in ids
  std::size_t embedding = 0;  // index into the names of EmbeddingNames
  bool operator==(const Insertion&) const = default;
};

// What the encoder is given at once: begin, tokens, end, padding.
struct TokenChunk {
  std::vector<std::int32_t> ids;
  std::vector<double> weights;         // one per id; 1 for begin, end and padding
  std::vector<std::size_t> fragments;  // of the passage, one per id; kNoFragment for those
  std::vector<Insertion> insertions;
};
inline constexpr std::size_t kNoFragment = static_cast<std::size_t>(-1);

// The names of textual-inversion embeddings and how many vectors each has.
class EmbeddingNames {
 public:
  using VectorsOf = std::function<std::size_t(std::size_t embedding)>;
  EmbeddingNames() = default;
  // Names are told apart without regard to case (ASCII). `vectors_of` is asked for those that a
  // prompt mentions, and may throw.
  EmbeddingNames(const std::vector<std::string>& names, VectorsOf vectors_of);

  struct Found {
    std::size_t begin = 0, end = 0;  // bytes of the text
    std::size_t embedding = 0;       // index into the names
  };
  // The leftmost, and of those the longest, name in the text from byte `from`, standing apart from
  // letters and digits; nothing: end == 0.
  Found find(std::string_view text, std::size_t from) const;
  std::size_t vectors(std::size_t embedding) const { return vectors_of_(embedding); }

 private:
  std::vector<std::string> folded_;
  std::map<char, std::vector<std::size_t>> by_first_;  // longest first
  VectorsOf vectors_of_;
};

// One token of a passage, or a break, or an embedding's place.
struct PassageToken {
  std::int32_t id = 0;
  double weight = 1.0;
  std::size_t fragment = kNoFragment;
  std::size_t begin = 0, end = 0;  // bytes of the fragment's text
  bool ends_word = false;
  bool is_break = false;
  std::size_t vectors = 0;  // of an embedding; 0: a token
  std::size_t embedding = 0;
};

// Every fragment tokenised by itself.
Result<std::vector<PassageToken>> tokenize(const ClipTokenizer& tokenizer, const Passage& passage,
                                           const EmbeddingNames& embeddings);

// Where a long prompt is cut. kA1111: full chunks, but what stands behind a comma among the last 20
// tokens moves to the next one. kLpw: full chunks. kCompel: after the last sentence that fits, else
// phrase, else word. A break ends a chunk, and an embedding is never cut. At least one chunk.
struct ChunkRule {
  contract::Weighting cut = contract::Weighting::kA1111;
  // Chunks are filled up with the tokenizer's own pad token behind the first end token. False: with
  // end tokens, and the last one is not filled up.
  bool padded = true;
  std::size_t least_tokens = 0;  // not padded: end tokens are added up to this many
};
std::vector<TokenChunk> cut_into_chunks(const ClipTokenizer& tokenizer,
                                        const std::vector<PassageToken>& tokens,
                                        const ChunkRule& rule);

// The first max_length() - 2 tokens as one padded chunk.
struct Truncated {
  TokenChunk chunk;
  std::string cut;  // the part of the passage that did not fit, "" when all did
};
Truncated truncate(const ClipTokenizer& tokenizer, const Passage& passage,
                   const std::vector<PassageToken>& tokens);

}  // namespace limner::prompt
