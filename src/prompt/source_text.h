// A piece of prompt that remembers where each of its bytes was typed, for messages with a position.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace limner::prompt {

class SourceText {
 public:
  SourceText() = default;
  explicit SourceText(std::string_view typed);

  const std::string& text() const { return text_; }
  std::size_t size() const { return text_.size(); }
  char operator[](std::size_t at) const { return text_[at]; }
  // Where byte `at` was typed; behind the last byte: one further than that.
  std::size_t offset(std::size_t at) const;

  SourceText slice(std::size_t begin, std::size_t end) const;
  void append(const SourceText& other, std::size_t begin, std::size_t end);

 private:
  std::string text_;
  std::vector<std::size_t> offsets_;
};

// What parsers throw inside this room: a message about the byte at `offset` of the typed text.
struct SyntaxError {
  std::size_t offset = 0;
  std::string what;
};

// "line 2, column 7", counted in characters from 1.
std::string position_of(std::string_view typed, std::size_t offset);

// Letters, digits, '_' and everything beyond ASCII.
bool is_word_byte(char byte);
bool is_space(char byte);

// Calls found(begin, end) for each `word` in text that has no word byte beside it.
template <typename Found>
void for_each_whole_word(std::string_view text, std::string_view word, Found found) {
  for (std::size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at)) {
    const std::size_t end = at + word.size();
    const bool whole = (at == 0 || !is_word_byte(text[at - 1])) &&
                       (end == text.size() || !is_word_byte(text[end]));
    if (whole) found(at, end);
    at = end;
  }
}

// The number that fills `text`: [+-]digits with at most one point, without exponent or spaces.
// Throws SyntaxError at `offset` when it is none, not finite or beyond kLargestWeight.
double read_weight(std::string_view text, std::size_t offset);

}  // namespace limner::prompt
