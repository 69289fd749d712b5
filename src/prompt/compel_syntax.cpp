#include "prompt/compel_syntax.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace limner::prompt {
namespace {

constexpr double kPlus = 1.1;
constexpr double kMinus = 0.9;
constexpr std::string_view kSyntax = "()\",.+-=";

bool is_syntax(char c) {
  return kSyntax.find(c) != std::string_view::npos;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// A word or mark with its weight, before neighbours are joined.
struct Piece {
  std::string text;
  double weight = 1.0;
  std::size_t at = 0;
};
using Pieces = std::vector<Piece>;

// Reads one range of the text; quoted parts are read by a reader of their own.
class CompelReader {
 public:
  CompelReader(const SourceText& source, std::vector<LoraTag>& loras, std::size_t begin,
               std::size_t end, std::size_t depth = 0)
      : source_(source),
        text_(source.text()),
        loras_(loras),
        at_(begin),
        end_(end),
        depth_(depth) {}

  Text whole_prompt() {
    skip_spaces();
    if (std::optional<Text> function = whole_function()) return *std::move(function);
    return {{Part{{passage(words())}, {1.0}, true, 1.0}}, {}};
  }

  // What compel calls a prompt: weights where they can be read, any other text word by word.
  Pieces words() {
    Pieces pieces;
    for (skip_spaces(); at_ < end_; skip_spaces()) {
      if (read_lora()) continue;
      const std::size_t begin = at_, loras = loras_.size();
      if (text_[at_] == '(' || text_[at_] == '"') {
        if (std::optional<Pieces> group = read_group()) {
          append(pieces, weighted_group(*std::move(group)));
          continue;
        }
      } else if (std::optional<Piece> word = read_word(); word && read_word_weight(*word)) {
        pieces.push_back(*std::move(word));
        continue;
      }
      at_ = begin;
      loras_.resize(loras);
      pieces.push_back(free_word());
    }
    return pieces;
  }

  // What stands between brackets: only words, groups, commas and points. Nothing when there is
  // something else before `closing` (or, for 0, the end of the range).
  std::optional<Pieces> fragment(char closing) {
    Pieces pieces;
    for (skip_spaces(); at_ < end_ && text_[at_] != closing; skip_spaces()) {
      if (read_lora()) continue;
      if (text_[at_] == '(' || text_[at_] == '"') {
        std::optional<Pieces> group = read_group();
        if (!group) return std::nullopt;
        append(pieces, weighted_group(*std::move(group)));
      } else if (text_[at_] == ',' || text_[at_] == '.') {
        pieces.push_back({std::string(1, text_[at_]), 1.0, at_});
        ++at_;
      } else {
        std::optional<Piece> word = read_word();
        if (!word) return std::nullopt;
        read_word_weight(*word);
        pieces.push_back(*std::move(word));
      }
    }
    return at_ < end_ || closing == 0 ? std::optional(std::move(pieces)) : std::nullopt;
  }

 private:
  [[noreturn]] void fail(std::size_t at, std::string what) const {
    throw SyntaxError{source_.offset(at), std::move(what)};
  }

  [[noreturn]] void refuse_swap() const {
    fail(at_, ".swap() is not supported: it needs the attention maps of two prompts");
  }

  void skip_spaces() {
    while (at_ < end_ && is_space(text_[at_])) ++at_;
  }

  bool starts_with(std::string_view word) const {
    return std::string_view(text_).substr(at_, end_ - at_).starts_with(word);
  }

  static void append(Pieces& pieces, Pieces more) {
    pieces.insert(pieces.end(), std::make_move_iterator(more.begin()),
                  std::make_move_iterator(more.end()));
  }

  // A group in brackets or quotes from at_ on; nothing, and at_ anywhere, when it is none.
  std::optional<Pieces> read_group() {
    if (depth_ >= kMostNested)
      fail(at_, fmt::format("more than {} brackets are open", kMostNested));
    if (text_[at_] == '"') return read_quoted(/*free=*/false);
    ++depth_;
    ++at_;
    std::optional<Pieces> inside = fragment(')');
    --depth_;
    if (inside) ++at_;
    return inside;
  }

  // "..." on one line; \" is a quote inside. `free`: any text, as a whole prompt.
  std::optional<Pieces> read_quoted(bool free) {
    std::size_t close = at_ + 1;
    while (close < end_ && text_[close] != '"' && text_[close] != '\n') {
      close += text_[close] == '\\' && close + 1 < end_ && text_[close + 1] == '"' ? 2 : 1;
    }
    if (close >= end_ || text_[close] != '"') return std::nullopt;
    CompelReader inside(source_, loras_, at_ + 1, close, depth_ + 1);
    std::optional<Pieces> pieces = free ? inside.words() : inside.fragment(0);
    if (!pieces) return std::nullopt;
    if (pieces->empty()) pieces->push_back({"", 1.0, at_});
    at_ = close + 1;
    return pieces;
  }

  // The weight behind a group, if there is one: ++, --, 1.2 or .attend(1.2).
  Pieces weighted_group(Pieces pieces) {
    double weight = 1.0;
    if (is_mark()) {
      weight = read_marks();
    } else if (const std::size_t length = number_length(at_); length > 0) {
      weight = read_weight(std::string_view(text_).substr(at_, length), source_.offset(at_));
      at_ += length;
    } else if (starts_with(".attend(")) {
      weight = read_attend();
    } else if (starts_with(".swap(")) {
      refuse_swap();
    } else {
      for (const std::string_view function : {".blend(", ".and(", ".add("}) {
        if (starts_with(function)) {
          fail(at_, fmt::format("{}) combines whole prompts: want (\"one\", \"two\"){}1, 1) and "
                                "nothing else",
                                function, function));
        }
      }
    }
    for (Piece& piece : pieces) piece.weight *= weight;
    return pieces;
  }

  bool is_mark() const { return at_ < end_ && (text_[at_] == '+' || text_[at_] == '-'); }

  // Whether a weight follows the word: ++, -- or .attend(1.2).
  bool read_word_weight(Piece& word) {
    if (starts_with(".swap(")) refuse_swap();
    const bool attend = starts_with(".attend(");
    if (!attend && !is_mark()) return false;
    word.weight = attend ? read_attend() : read_marks();
    return true;
  }

  double read_marks() {
    const char mark = text_[at_];
    const std::size_t begin = at_;
    while (at_ < end_ && text_[at_] == mark) ++at_;
    return std::pow(mark == '+' ? kPlus : kMinus, static_cast<double>(at_ - begin));
  }

  // Of digits with or without a point from `at` on.
  std::size_t number_length(std::size_t at) const {
    std::size_t end = at, digits = 0;
    while (end < end_ && is_digit(text_[end])) ++end, ++digits;
    if (end < end_ && text_[end] == '.' &&
        (digits > 0 || (end + 1 < end_ && is_digit(text_[end + 1])))) {
      ++end;
      while (end < end_ && is_digit(text_[end])) ++end, ++digits;
    }
    return digits == 0 ? 0 : end - at;
  }

  double read_attend() {
    at_ += std::string_view(".attend").size();
    expect('(');
    skip_spaces();
    double weight = 1.0;
    if (is_mark() && !(at_ + 1 < end_ && is_digit(text_[at_ + 1]))) {
      weight = read_marks();
    } else {
      weight = read_number();
    }
    expect(')');
    return weight;
  }

  double read_number() {
    const std::size_t begin = at_;
    while (at_ < end_ && text_[at_] != ',' && text_[at_] != ')' && !is_space(text_[at_])) ++at_;
    return read_weight(std::string_view(text_).substr(begin, at_ - begin), source_.offset(begin));
  }

  void expect(char wanted) {
    skip_spaces();
    if (at_ >= end_ || text_[at_] != wanted) {
      fail(std::min(at_, end_),
           fmt::format("want '{}', got {}", wanted,
                       at_ >= end_ ? "the end" : fmt::format("'{}'", character_at(at_))));
    }
    ++at_;
  }

  // The whole UTF-8 character, for a message.
  std::string character_at(std::size_t at) const {
    std::size_t end = at + 1;
    while (end < end_ && (static_cast<unsigned char>(text_[end]) & 0xC0) == 0x80) ++end;
    return text_.substr(at, end - at);
  }

  // withLora(name) or useLora(name, 0.8), anywhere a word can stand.
  bool read_lora() {
    for (const std::string_view name : {"withLora", "useLora"}) {
      if (!starts_with(name) || at_ + name.size() >= end_ || text_[at_ + name.size()] != '(') {
        continue;
      }
      at_ += name.size() + 1;
      skip_spaces();
      const std::size_t begin = at_;
      while (at_ < end_ && text_[at_] != ',' && text_[at_] != ')' && !is_space(text_[at_])) ++at_;
      LoraTag tag{text_.substr(begin, at_ - begin), 1.0, 1.0};
      if (tag.name.empty()) fail(begin, fmt::format("{}() needs a name", name));
      skip_spaces();
      if (at_ < end_ && text_[at_] == ',') {
        ++at_;
        skip_spaces();
        tag.unet_weight = tag.text_encoder_weight = read_number();
      }
      expect(')');
      loras_.push_back(std::move(tag));
      return true;
    }
    return false;
  }

  // A run without syntax: escaped marks, numbers, other characters, and + or - inside a word.
  std::optional<Piece> read_word() {
    const std::size_t begin = at_;
    while (at_ < end_ && !is_space(text_[at_])) {
      const char c = text_[at_];
      const bool more = at_ + 1 < end_;
      if (c == '\\' && more && is_syntax(text_[at_ + 1])) {
        at_ += 2;
      } else if ((c == '+' || c == '-') && more && !is_space(text_[at_ + 1]) &&
                 !is_syntax(text_[at_ + 1])) {
        ++at_;
      } else if (!is_syntax(c)) {
        ++at_;
      } else {
        break;
      }
    }
    if (at_ == begin) return std::nullopt;
    return Piece{unescaped(begin, at_), 1.0, begin};
  }

  // Everything up to white space or behind a comma, syntax and all.
  Piece free_word() {
    const std::size_t begin = at_;
    while (at_ < end_ && !is_space(text_[at_])) {
      if (text_[at_++] == ',') break;
    }
    return {unescaped(begin, at_), 1.0, begin};
  }

  std::string unescaped(std::size_t begin, std::size_t end) const {
    std::string word;
    for (std::size_t i = begin; i < end; ++i) {
      if (text_[i] == '\\' && i + 1 < end && is_syntax(text_[i + 1])) ++i;
      word += text_[i];
    }
    return word;
  }

  // ("a", "b").blend(...) or .and(...) over the whole range; nothing when it is neither.
  std::optional<Text> whole_function() {
    const std::size_t begin = at_;
    std::optional<std::vector<Pieces>> targets = read_targets();
    skip_spaces();
    const bool blend = targets && starts_with(".blend(");
    const bool conjunction = targets && (starts_with(".and(") || starts_with(".add("));
    if (!blend && !conjunction) {
      at_ = begin;
      loras_.clear();
      return std::nullopt;
    }
    at_ += blend ? std::string_view(".blend").size() : std::string_view(".and").size();
    const std::size_t open = at_;
    bool normalized = true;
    std::vector<double> weights = read_arguments(blend, normalized);
    if (weights.empty()) weights.assign(targets->size(), 1.0);
    if (weights.size() != targets->size()) {
      fail(open, fmt::format("want a weight for each of {} prompts, got {}", targets->size(),
                             weights.size()));
    }
    skip_spaces();
    if (at_ < end_) fail(at_, "this stands behind the function that combines the whole prompt");
    Text text;
    if (blend) {
      double total = 0;
      for (const double weight : weights) total += weight;
      if (normalized && std::abs(total) < 1e-6) fail(open, "these weights add up to 0");
      text.parts.push_back({{}, weights, normalized, 1.0});
      for (Pieces& target : *targets) text.parts[0].passages.push_back(passage(std::move(target)));
    } else {
      for (std::size_t i = 0; i < targets->size(); ++i) {
        text.parts.push_back({{passage(std::move((*targets)[i]))}, {1.0}, true, weights[i]});
      }
    }
    return text;
  }

  std::optional<std::vector<Pieces>> read_targets() {
    if (at_ >= end_ || text_[at_] != '(') return std::nullopt;
    ++at_;
    std::vector<Pieces> targets;
    for (;;) {
      skip_spaces();
      if (at_ >= end_) return std::nullopt;
      std::optional<Pieces> target;
      if (text_[at_] == '"') {
        target = read_quoted(/*free=*/true);
      } else if (text_[at_] == '(') {
        target = read_group();
      } else if (std::optional<Piece> word = read_word()) {
        target = Pieces{*std::move(word)};
      }
      if (!target) return std::nullopt;
      targets.push_back(*std::move(target));
      skip_spaces();
      if (at_ < end_ && text_[at_] == ')') {
        ++at_;
        return targets;
      }
      if (at_ >= end_ || text_[at_] != ',') return std::nullopt;
      ++at_;
    }
  }

  std::vector<double> read_arguments(bool blend, bool& normalized) {
    expect('(');
    std::vector<double> weights;
    for (skip_spaces(); at_ < end_ && text_[at_] != ')'; skip_spaces()) {
      if (blend && starts_with("no_normalize")) {
        at_ += std::string_view("no_normalize").size();
        normalized = false;
      } else {
        weights.push_back(read_number());
      }
      skip_spaces();
      if (at_ < end_ && text_[at_] == ',') {
        ++at_;
      } else if (at_ < end_ && text_[at_] != ')') {
        fail(at_, "want a comma between weights");
      }
    }
    expect(')');
    return weights;
  }

  // Neighbours of equal weight become one fragment, with a space between their words.
  Passage passage(Pieces pieces) const {
    Passage passage;
    for (Piece& piece : pieces) {
      if (!std::isfinite(piece.weight) || std::abs(piece.weight) > kLargestWeight) {
        fail(piece.at, fmt::format("the weights multiply to {:g}; want at most {:g}", piece.weight,
                                   kLargestWeight));
      }
      if (!passage.empty() && passage.back().weight == piece.weight) {
        passage.back().text += ' ';
        passage.back().text += piece.text;
      } else {
        Fragment& fragment = passage.emplace_back();
        fragment.text = std::move(piece.text);
        fragment.weight = piece.weight;
      }
    }
    if (passage.empty()) passage.emplace_back();
    return passage;
  }

  const SourceText& source_;
  const std::string& text_;
  std::vector<LoraTag>& loras_;
  std::size_t at_, end_;
  std::size_t depth_;
};

}  // namespace

CompelPrompt parse_compel(const SourceText& text) {
  CompelPrompt prompt;
  prompt.text = CompelReader(text, prompt.loras, 0, text.size()).whole_prompt();
  prompt.text.source = text.text();
  return prompt;
}

}  // namespace limner::prompt
