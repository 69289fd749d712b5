#include "prompt/source_text.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <numeric>

#include "prompt/parsed_prompt.h"

namespace limner::prompt {

SourceText::SourceText(std::string_view typed) : text_(typed), offsets_(typed.size()) {
  std::iota(offsets_.begin(), offsets_.end(), std::size_t{0});
}

std::size_t SourceText::offset(std::size_t at) const {
  if (at < offsets_.size()) return offsets_[at];
  return offsets_.empty() ? 0 : offsets_.back() + 1;
}

SourceText SourceText::slice(std::size_t begin, std::size_t end) const {
  SourceText piece;
  piece.append(*this, begin, end);
  return piece;
}

void SourceText::append(const SourceText& other, std::size_t begin, std::size_t end) {
  text_.append(other.text_, begin, end - begin);
  offsets_.insert(offsets_.end(), other.offsets_.begin() + static_cast<std::ptrdiff_t>(begin),
                  other.offsets_.begin() + static_cast<std::ptrdiff_t>(end));
}

std::string position_of(std::string_view typed, std::size_t offset) {
  std::size_t line = 1, column = 1;
  for (std::size_t i = 0; i < offset && i < typed.size(); ++i) {
    if (typed[i] == '\n') {
      ++line;
      column = 1;
    } else if ((static_cast<unsigned char>(typed[i]) & 0xC0) != 0x80) {
      ++column;
    }
  }
  return fmt::format("line {}, column {}", line, column);
}

bool is_word_byte(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
         (byte >= '0' && byte <= '9') || byte == '_' || static_cast<unsigned char>(byte) >= 0x80;
}

bool is_space(char byte) {
  return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

double read_weight(std::string_view text, std::size_t offset) {
  const std::string_view shown = text.substr(0, 40);
  std::string_view digits = text;
  if (!digits.empty() && digits.front() == '+') digits.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value,
                                            std::chars_format::fixed);
  const bool sign_twice = !digits.empty() && text.front() == '+' && digits.front() == '-';
  if ((error != std::errc() && error != std::errc::result_out_of_range) ||
      end != digits.data() + digits.size() || sign_twice) {
    throw SyntaxError{offset, fmt::format("want a number, got '{}'", shown)};
  }
  if (error == std::errc::result_out_of_range || !std::isfinite(value) ||
      std::abs(value) > kLargestWeight) {
    throw SyntaxError{offset, fmt::format("want a weight between -{:g} and {:g}, got {}",
                                          kLargestWeight, kLargestWeight, shown)};
  }
  return value;
}

}  // namespace limner::prompt
