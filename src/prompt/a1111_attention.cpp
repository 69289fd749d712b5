#include "prompt/a1111_attention.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

namespace limner::prompt {
namespace {

constexpr double kRound = 1.1;
constexpr double kSquare = 1 / 1.1;
constexpr std::string_view kBreak = "BREAK";

class AttentionReader {
 public:
  explicit AttentionReader(const SourceText& source) : source_(source), text_(source.text()) {}

  Passage read() {
    while (at_ < text_.size()) read_piece();
    for (const std::size_t open : round_) multiply_from(open, kRound);
    for (const std::size_t open : square_) multiply_from(open, kSquare);
    return merged();
  }

 private:
  struct Piece {
    Fragment fragment;
    std::size_t offset = 0;
  };

  void read_piece() {
    switch (text_[at_]) {
      case '\\':
        return read_escape();
      case '(':
        open(round_);
        return;
      case '[':
        open(square_);
        return;
      case ')':
        if (!close(round_, kRound)) add_text(at_, at_ + 1);
        ++at_;
        return;
      case ']':
        if (!close(square_, kSquare)) add_text(at_, at_ + 1);
        ++at_;
        return;
      case ':':
        return read_colon();
      default: {
        const std::size_t end = std::min(text_.find_first_of("\\()[]:", at_), text_.size());
        add_text(at_, end);
        at_ = end;
      }
    }
  }

  // A backslash makes a bracket or another backslash text, and is dropped anywhere else.
  void read_escape() {
    const bool escapes = at_ + 1 < text_.size() &&
                         std::string_view("()[]\\").find(text_[at_ + 1]) != std::string_view::npos;
    if (escapes) add(std::string(1, text_[at_ + 1]), at_);
    at_ += escapes ? 2 : 1;
  }

  // ":1.3)" closes a bracket with a weight; any other colon is text.
  void read_colon() {
    std::size_t begin = at_ + 1;
    while (begin < text_.size() && is_space(text_[begin])) ++begin;
    std::size_t end = begin;
    if (end < text_.size() && (text_[end] == '+' || text_[end] == '-')) ++end;
    const std::size_t digits = end;
    while (end < text_.size() && (text_[end] == '.' || (text_[end] >= '0' && text_[end] <= '9'))) {
      ++end;
    }
    std::size_t after = end;
    while (after < text_.size() && is_space(text_[after])) ++after;
    if (end == digits || after == text_.size() || text_[after] != ')' || round_.empty()) {
      add_text(at_, at_ + 1);
      ++at_;
      return;
    }
    close(round_,
          read_weight(std::string_view(text_).substr(begin, end - begin), source_.offset(begin)));
    at_ = after + 1;
  }

  void open(std::vector<std::size_t>& brackets) {
    if (round_.size() + square_.size() >= kMostNested) {
      throw SyntaxError{source_.offset(at_),
                        fmt::format("more than {} brackets are open", kMostNested)};
    }
    brackets.push_back(pieces_.size());
    ++at_;
  }

  bool close(std::vector<std::size_t>& brackets, double weight) {
    if (brackets.empty()) return false;
    multiply_from(brackets.back(), weight);
    brackets.pop_back();
    return true;
  }

  void multiply_from(std::size_t first, double weight) {
    for (std::size_t i = first; i < pieces_.size(); ++i) {
      if (!pieces_[i].fragment.is_break) pieces_[i].fragment.weight *= weight;
    }
  }

  void add(std::string text, std::size_t at) {
    Piece& piece = pieces_.emplace_back();
    piece.fragment.text = std::move(text);
    piece.offset = source_.offset(at);
  }

  // Text without marks, split at the word BREAK and the white space around it.
  void add_text(std::size_t begin, std::size_t end) {
    const std::string_view text = std::string_view(text_).substr(begin, end - begin);
    std::size_t done = 0;
    for_each_whole_word(text, kBreak, [&](std::size_t from, std::size_t to) {
      while (from > done && is_space(text[from - 1])) --from;
      while (to < text.size() && is_space(text[to])) ++to;
      add(std::string(text.substr(done, from - done)), begin + done);
      add(std::string(kBreak), begin + from);
      pieces_.back().fragment.weight = -1.0;
      pieces_.back().fragment.is_break = true;
      done = to;
    });
    add(std::string(text.substr(done)), begin + done);
  }

  Passage merged() const {
    Passage passage;
    for (const auto& [fragment, offset] : pieces_) {
      if (!std::isfinite(fragment.weight) || std::abs(fragment.weight) > kLargestWeight) {
        throw SyntaxError{offset, fmt::format("the weights multiply to {:g}; want at most {:g}",
                                              fragment.weight, kLargestWeight)};
      }
      if (!passage.empty() && !fragment.is_break && !passage.back().is_break &&
          passage.back().weight == fragment.weight) {
        passage.back().text += fragment.text;
      } else {
        passage.push_back(fragment);
      }
    }
    if (passage.empty()) passage.emplace_back();
    return passage;
  }

  const SourceText& source_;
  const std::string& text_;
  std::size_t at_ = 0;
  std::vector<Piece> pieces_;
  std::vector<std::size_t> round_, square_;  // the piece that each open bracket begins with
};

}  // namespace

Passage parse_a1111_attention(const SourceText& text) {
  return AttentionReader(text).read();
}

}  // namespace limner::prompt
