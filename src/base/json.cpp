#include "base/json.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>
#include <vector>

#include "base/quote.h"

namespace limner {
namespace {

using nlohmann::json;

// How many lines have been read: the parser copies its iterators, so they share this.
struct Position {
  std::size_t line = 1;
  bool after_line_end = false;  // the last character read was '\n'
};

class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, Position* position) : at_(at), position_(position) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    // Counted when the character after it is read, so that a line end belongs to its own line.
    if (position_->after_line_end) ++position_->line;
    position_->after_line_end = *at_ == '\n';
    ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  Position* position_;
};

// Builds the tree by hand, because nlohmann's own builder keeps the last of two equal keys and has
// no limits. Its SAX parser holds nesting in a vector, so deep input costs no stack before `depth`
// stops it.
class TreeBuilder final : public nlohmann::json_sax<json> {
 public:
  TreeBuilder(const JsonLimits& limits, const Position& position, JsonLines* lines)
      : limits_(limits), position_(position), lines_(lines) {}

  json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& value) override {
    Open& top = stack_.back();
    const auto [place, is_new] = top.value->get_ref<json::object_t&>().emplace(value, nullptr);
    if (!is_new) fail(fmt::format("the key {} occurs twice", quote(value)));
    top.slot = &place->second;
    if (lines_) {
      top.slot_pointer = top.pointer + "/" + pointer_part(value);
      lines_->set(top.slot_pointer, position_.line);
    }
    return true;
  }

  bool parse_error(std::size_t byte, const std::string&, const json::exception& error) override {
    // nlohmann's text begins with its own error number and the position, and ends in what it read.
    const std::string text = error.what();
    const std::size_t colon = text.find(": ");
    const std::size_t begin = colon == std::string::npos ? 0 : colon + 2;
    const std::string safe = quote(text.substr(begin, text.find("; last read") - begin));
    const std::string detail = safe.substr(1, safe.size() - 2);
    fail(lines_ ? fmt::format("not valid JSON ({})", detail)
                : fmt::format("not valid JSON near byte {} ({})", byte, detail));
  }

 private:
  struct Open {
    json* value;
    std::string pointer;         // to `value`; kept only when lines are wanted
    json* slot = nullptr;        // in an object: where the value of the key read last goes
    std::string slot_pointer{};  // to `slot`
  };

  [[noreturn]] void fail(const std::string& what) const {
    throw Failure(ErrorCode::kInvalidArgument,
                  lines_ ? fmt::format("line {}: {}", position_.line, what) : what);
  }

  std::pair<json*, std::string> place(json value) {
    if (++values_ > limits_.values) fail(fmt::format("more than {} JSON values", limits_.values));
    if (stack_.empty()) {
      root_ = std::move(value);
      if (lines_) lines_->set("", position_.line);
      return {&root_, ""};
    }
    Open& top = stack_.back();
    if (top.value->is_object()) {
      *top.slot = std::move(value);
      return {top.slot, std::move(top.slot_pointer)};
    }
    auto& list = top.value->get_ref<json::array_t&>();
    std::string pointer;
    if (lines_) {
      pointer = fmt::format("{}/{}", top.pointer, list.size());
      lines_->set(pointer, position_.line);
    }
    list.push_back(std::move(value));
    return {&list.back(), std::move(pointer)};
  }

  bool add(json value) {
    place(std::move(value));
    return true;
  }

  bool open(json container) {
    if (stack_.size() >= limits_.depth)
      fail(fmt::format("JSON nested deeper than {} levels", limits_.depth));
    // Safe to keep: an array only grows while its last element is closed.
    auto [value, pointer] = place(std::move(container));
    stack_.push_back({.value = value, .pointer = std::move(pointer)});
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  const JsonLimits& limits_;
  const Position& position_;
  JsonLines* const lines_;
  json root_;
  std::vector<Open> stack_;
  std::size_t values_ = 0;
};

Error refused(std::string what) {
  return {.code = ErrorCode::kInvalidArgument, .message = std::move(what)};
}

}  // namespace

std::string pointer_part(std::string_view name) {
  std::string part;
  for (const char c : name) {
    if (c == '~') {
      part += "~0";
    } else if (c == '/') {
      part += "~1";
    } else {
      part += c;
    }
  }
  return part;
}

std::size_t JsonLines::line_of(std::string_view pointer) const {
  std::string at(pointer);
  while (true) {
    if (const auto found = lines_.find(at); found != lines_.end()) return found->second;
    if (at.empty()) return 1;
    const std::size_t slash = at.rfind('/');
    at = slash == std::string::npos ? "" : at.substr(0, slash);
  }
}

Result<json> parse_json(std::string_view text, const JsonLimits& limits, JsonLines* lines) {
  if (text.size() > limits.bytes) {
    return refused(limits.bytes >> 20 > 0
                       ? fmt::format("JSON larger than {} MiB", limits.bytes >> 20)
                       : fmt::format("JSON larger than {} bytes", limits.bytes));
  }
  // nlohmann's parser takes a zero byte for the end of its input, and what follows would go unseen.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos)
    return refused(fmt::format("not valid JSON near byte {} (a zero byte)", zero));
  try {
    Position position;
    TreeBuilder builder(limits, position, lines);
    json::sax_parse(CountingIterator(text.data(), &position),
                    CountingIterator(text.data() + text.size(), &position), &builder);
    return builder.take();
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner
