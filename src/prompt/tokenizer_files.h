// Reading a tokenizer folder as transformers writes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "prompt/byte_pairs.h"

namespace limner::prompt {

// A token that is recognised in the text as a whole, before words are split.
struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool normalized = false;  // looked for in the normalised text, not in the text as typed
  bool strip_left = false;  // takes the white space beside it
  bool strip_right = false;
};

struct TokenizerFiles {
  BytePairs::Vocabulary vocabulary;
  std::vector<BytePairs::Merge> merges;
  std::vector<AddedToken> added;  // one per content
  std::int32_t begin_id = 0;
  std::int32_t end_id = 0;
  std::int32_t pad_id = 0;
  std::int32_t unknown_id = 0;
  std::size_t vocabulary_size = 0;  // with the added tokens
  std::size_t max_length = 77;
};

// tokenizer.json is preferred over vocab.json + merges.txt, and tokenizer_config.json's
// added_tokens_decoder over special_tokens_map.json, as transformers 5 does. Throws Failure:
// kNotFound, kIo, kInvalidModel, and kUnsupported for what would change the result and is not built
// (single_word tokens, other normalisers or models).
TokenizerFiles read_tokenizer_files(const std::filesystem::path& folder);

}  // namespace limner::prompt
