// The CLIP byte-pair tokenizer, equal id by id to transformers' CLIPTokenizer (4 and 5) on any
// Unicode text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::prompt {

// Immutable after load; safe to use from many threads at once.
class ClipTokenizer {
 public:
  // A tokenizer folder: vocab.json + merges.txt, or tokenizer.json alone; special tokens and
  // model_max_length from special_tokens_map.json / tokenizer_config.json where present. Errors:
  // kNotFound, kInvalidModel.
  static Result<ClipTokenizer> load(const std::filesystem::path& folder);

  struct Token {
    std::int32_t id = 0;
    std::size_t begin = 0;  // byte range in the input text
    std::size_t end = 0;
    bool ends_word = false;  // the vocabulary's "</w>"
  };

  // The ids of `text` without begin and end tokens. Text must be valid UTF-8 (kInvalidArgument
  // names the byte offset).
  Result<std::vector<Token>> tokenize(std::string_view text) const;

  struct Encoding {
    std::vector<std::int32_t> ids;  // exactly max_length(): begin, tokens, end, padding
    std::string cut;                // the part of the text that did not fit, "" when all did
  };
  // What diffusers does: truncate to max_length() - 2 tokens and pad with this tokenizer's own pad
  // token.
  Result<Encoding> encode(std::string_view text) const;

  std::int32_t begin_id() const;
  std::int32_t end_id() const;
  std::int32_t pad_id() const;
  std::size_t max_length() const;  // 77
  std::size_t vocabulary_size() const;

  ClipTokenizer(ClipTokenizer&&) noexcept;
  ClipTokenizer& operator=(ClipTokenizer&&) noexcept;
  ~ClipTokenizer();

 private:
  struct State;
  explicit ClipTokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace limner::prompt
