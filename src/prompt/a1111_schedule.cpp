#include "prompt/a1111_schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "prompt/parsed_prompt.h"

namespace limner::prompt {
namespace {

constexpr std::size_t kNone = std::string::npos;

// For each bracket the place of its partner, or kNone. A bracket of the wrong kind leaves all open
// ones without a partner.
std::vector<std::size_t> partners(const SourceText& source) {
  const std::string& text = source.text();
  std::vector<std::size_t> partner(text.size(), kNone);
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\') {
      ++i;
    } else if (c == '(' || c == '[') {
      if (open.size() >= kMostNested) {
        throw SyntaxError{source.offset(i),
                          fmt::format("more than {} brackets are open", kMostNested)};
      }
      open.push_back(i);
    } else if (c == ')' || c == ']') {
      if (!open.empty() && text[open.back()] == (c == ')' ? '(' : '[')) {
        partner[open.back()] = i;
        partner[i] = open.back();
        open.pop_back();
      } else {
        open.clear();
      }
    }
  }
  return partner;
}

struct Node;
using Nodes = std::vector<Node>;

struct Node {
  enum class Kind { kText, kScheduled, kAlternate };
  Kind kind = Kind::kText;
  std::size_t begin = 0, end = 0;  // of text
  std::int64_t when = 0;           // of a schedule: the last step of the first choice
  std::vector<Nodes> choices;      // from and to, or what takes turns
};

class ScheduleReader {
 public:
  ScheduleReader(const SourceText& source, std::int64_t steps)
      : text_(source.text()), partner_(partners(source)), steps_(steps) {
    nodes_ = read(0, text_.size());
  }

  const Nodes& nodes() const { return nodes_; }
  const std::set<std::int64_t>& changes() const { return changes_; }

 private:
  Nodes read(std::size_t begin, std::size_t end) {
    Nodes nodes;
    std::size_t done = begin;
    for (std::size_t i = begin; i < end; ++i) {
      if (text_[i] == '\\') {
        ++i;
      } else if (text_[i] == '[' && partner_[i] != kNone) {
        std::optional<Node> node = read_bracket(i + 1, partner_[i]);
        if (!node) continue;
        nodes.push_back({.begin = done, .end = i, .choices = {}});
        nodes.push_back(std::move(*node));
        i = partner_[i];
        done = i + 1;
      }
    }
    nodes.push_back({.begin = done, .end = end, .choices = {}});
    return nodes;
  }

  // Nothing when what is inside is neither a schedule nor an alternation.
  std::optional<Node> read_bracket(std::size_t begin, std::size_t end) {
    const std::vector<std::size_t> colons = separators(begin, end, ':');
    if (colons.size() == 1 || colons.size() == 2) {
      if (const auto when = read_when(colons.back() + 1, end)) {
        Node node{.kind = Node::Kind::kScheduled, .when = *when, .choices = {}};
        const std::size_t middle = colons.size() == 2 ? colons.front() : begin;
        node.choices.push_back(read(begin, middle));
        node.choices.push_back(read(colons.size() == 2 ? middle + 1 : begin, colons.back()));
        if (*when >= 1) changes_.insert(*when);
        return node;
      }
    }
    const std::vector<std::size_t> bars = separators(begin, end, '|');
    if (bars.empty()) return std::nullopt;
    Node node{.kind = Node::Kind::kAlternate, .choices = {}};
    std::size_t from = begin;
    for (const std::size_t bar : bars) {
      node.choices.push_back(read(from, bar));
      from = bar + 1;
    }
    node.choices.push_back(read(from, end));
    for (std::int64_t step = 1; step <= steps_; ++step) changes_.insert(step);
    return node;
  }

  // Places of `mark` outside inner brackets.
  std::vector<std::size_t> separators(std::size_t begin, std::size_t end, char mark) const {
    std::vector<std::size_t> found;
    for (std::size_t i = begin; i < end; ++i) {
      if (text_[i] == '\\') {
        ++i;
      } else if ((text_[i] == '[' || text_[i] == '(') && partner_[i] != kNone) {
        i = partner_[i];
      } else if (text_[i] == mark) {
        found.push_back(i);
      }
    }
    return found;
  }

  // The step that the number between them means, at most the last one; nothing if it is no number.
  std::optional<std::int64_t> read_when(std::size_t begin, std::size_t end) const {
    while (begin < end && is_space(text_[begin])) ++begin;
    while (end > begin && is_space(text_[end - 1])) --end;
    std::string_view number = std::string_view(text_).substr(begin, end - begin);
    const bool fraction = number.find('.') != std::string_view::npos;
    if (number.starts_with('+')) number.remove_prefix(1);
    if (number.empty() || number.find_first_not_of("-.0123456789eE+") != std::string_view::npos) {
      return std::nullopt;
    }
    double value = 0;
    const auto [stop, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (error != std::errc() || stop != number.data() + number.size()) return std::nullopt;
    const double last = static_cast<double>(steps_);
    return static_cast<std::int64_t>(std::clamp(fraction ? value * last : value, -1.0, last));
  }

  const std::string& text_;
  std::vector<std::size_t> partner_;
  std::int64_t steps_;
  Nodes nodes_;
  std::set<std::int64_t> changes_;  // the last steps of spans
};

void append_at(const SourceText& source, const Nodes& nodes, std::int64_t step, SourceText& out) {
  for (const Node& node : nodes) {
    switch (node.kind) {
      case Node::Kind::kText:
        out.append(source, node.begin, node.end);
        break;
      case Node::Kind::kScheduled:
        append_at(source, node.choices[step <= node.when ? 0 : 1], step, out);
        break;
      case Node::Kind::kAlternate: {
        const auto turns = static_cast<std::int64_t>(node.choices.size());
        append_at(source, node.choices[static_cast<std::size_t>((step - 1) % turns)], step, out);
      }
    }
  }
}

}  // namespace

void resolve_a1111_schedule(
    const SourceText& text, std::int64_t steps,
    const std::function<void(std::int64_t last, const SourceText& text)>& span) {
  const ScheduleReader reader(text, steps);
  std::set<std::int64_t> ends = reader.changes();
  ends.insert(steps);
  for (const std::int64_t end : ends) {
    SourceText resolved;
    append_at(text, reader.nodes(), end, resolved);
    span(end, resolved);
  }
}

}  // namespace limner::prompt
