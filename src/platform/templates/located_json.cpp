#include "platform/templates/located_json.h"

#include <fmt/format.h>

#include <iterator>
#include <utility>
#include <vector>

namespace limner::platform {
namespace {

using nlohmann::json;

constexpr std::size_t kMostBytes = 4u << 20;
constexpr std::size_t kDeepest = 32;
constexpr std::size_t kMostValues = 100'000;

// Where the parser has read to: the parser copies its iterators, so they share this.
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

class Builder final : public nlohmann::json_sax<json> {
 public:
  explicit Builder(const Position& position) : position_(position) {}

  LocatedJson take() { return std::move(result_); }

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
    json& object = *stack_.back().value;
    if (object.contains(value)) fail(fmt::format("the key \"{}\" occurs twice", shown(value)));
    key_ = value;
    key_line_ = position_.line;
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    // The library's text begins with its own error number and position.
    const std::string text = error.what();
    const std::size_t colon = text.find(": ");
    const std::size_t last = text.find("; last read");
    fail("not valid JSON (" +
         shown(colon == std::string::npos ? text : text.substr(colon + 2, last - colon - 2)) + ")");
  }

 private:
  struct Open {
    json* value;
    std::string pointer;
  };

  [[noreturn]] void fail(const std::string& what) const {
    throw Failure(ErrorCode::kInvalidArgument, fmt::format("line {}: {}", position_.line, what));
  }

  static std::string shown(const std::string& text) {
    std::string safe = text.substr(0, 200);
    for (char& c : safe) {
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7F) c = '?';
    }
    return safe;
  }

  std::pair<json*, std::string> place(json value) {
    if (++values_ > kMostValues) fail(fmt::format("more than {} values", kMostValues));
    if (stack_.empty()) {
      result_.value = std::move(value);
      result_.lines[""] = position_.line;
      return {&result_.value, ""};
    }
    Open& top = stack_.back();
    if (top.value->is_object()) {
      std::string pointer = top.pointer + "/" + pointer_part(key_);
      result_.lines[pointer] = key_line_;
      json& slot = (*top.value)[key_];
      slot = std::move(value);
      return {&slot, std::move(pointer)};
    }
    std::string pointer = fmt::format("{}/{}", top.pointer, top.value->size());
    result_.lines[pointer] = position_.line;
    top.value->push_back(std::move(value));
    return {&top.value->back(), std::move(pointer)};
  }

  bool add(json value) {
    place(std::move(value));
    return true;
  }

  bool open(json container) {
    if (stack_.size() >= kDeepest) fail(fmt::format("nested deeper than {} levels", kDeepest));
    // Safe to keep: an array only grows while its last element is closed.
    auto [value, pointer] = place(std::move(container));
    stack_.push_back({value, std::move(pointer)});
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  const Position& position_;
  LocatedJson result_;
  std::vector<Open> stack_;
  std::string key_;
  std::size_t key_line_ = 1;
  std::size_t values_ = 0;
};

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

std::size_t LocatedJson::line_of(std::string_view pointer) const {
  std::string at(pointer);
  while (true) {
    if (const auto found = lines.find(at); found != lines.end()) return found->second;
    if (at.empty()) return 1;
    const std::size_t slash = at.rfind('/');
    at = slash == std::string::npos ? "" : at.substr(0, slash);
  }
}

Result<LocatedJson> parse_located_json(std::string_view text) {
  try {
    if (text.size() > kMostBytes) {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("larger than {} MiB", kMostBytes >> 20));
    }
    if (text.find('\0') != std::string_view::npos)
      throw Failure(ErrorCode::kInvalidArgument, "holds a zero byte, so it is no text");
    Position position;
    Builder builder(position);
    json::sax_parse(CountingIterator(text.data(), &position),
                    CountingIterator(text.data() + text.size(), &position), &builder);
    return builder.take();
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::platform
