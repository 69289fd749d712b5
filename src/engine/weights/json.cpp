#include "engine/weights/json.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

using nlohmann::json;

// Builds the tree by hand, because nlohmann's own builder keeps the last of two equal keys and has
// no limits. Its SAX parser holds nesting in a vector, so deep input costs no stack before `depth`
// stops it.
class TreeBuilder final : public nlohmann::json_sax<json> {
 public:
  TreeBuilder(const std::string& where, const JsonLimits& limits)
      : where_(where), limits_(limits) {}

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
    const auto [place, is_new] = stack_.back()->get_ref<json::object_t&>().emplace(value, nullptr);
    if (!is_new) fail(fmt::format("the key {} occurs twice", quote(value)));
    slot_ = &place->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const json::exception& error) override {
    // nlohmann's text ends in what it wanted; its first part repeats the position and its own error
    // number.
    const std::string text = error.what();
    const std::size_t reason = text.find("; last read");
    const std::size_t colon = text.find(": ");
    std::string detail =
        colon == std::string::npos ? text : text.substr(colon + 2, reason - colon - 2);
    fail(fmt::format("not valid JSON near byte {} ({})", position, shorten(std::move(detail))));
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Failure(ErrorCode::kInvalidModel, where_ + ": " + what);
  }

  static std::string shorten(std::string text) {
    const std::string safe = quote(text);
    return safe.substr(1, safe.size() - 2);
  }

  json* place(json value) {
    if (++values_ > limits_.values) fail(fmt::format("more than {} JSON values", limits_.values));
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (stack_.back()->is_object()) {
      *slot_ = std::move(value);
      return slot_;
    }
    auto& list = stack_.back()->get_ref<json::array_t&>();
    list.push_back(std::move(value));
    return &list.back();
  }

  bool add(json value) {
    place(std::move(value));
    return true;
  }

  bool open(json container) {
    if (stack_.size() >= limits_.depth)
      fail(fmt::format("JSON nested deeper than {} levels", limits_.depth));
    // Safe to keep: an array only grows while its last element is closed.
    stack_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  const std::string& where_;
  const JsonLimits& limits_;
  json root_;
  std::vector<json*> stack_;
  json* slot_ = nullptr;
  std::size_t values_ = 0;
};

}  // namespace

json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  // nlohmann's parser takes a zero byte for the end of its input, and what follows would go unseen.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos) {
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: not valid JSON near byte {} (a zero byte)", where, zero));
  }
  TreeBuilder builder(where, limits);
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

json read_json(const std::filesystem::path& file, const std::string& where,
               const JsonLimits& limits) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (!std::filesystem::exists(status)) {
    throw Failure(ErrorCode::kNotFound, where + ": no such file");
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw Failure(ErrorCode::kInvalidModel, where + ": not a regular file");
  }
  std::ifstream stream(file, std::ios::binary);
  if (!stream)
    throw Failure(ErrorCode::kIo,
                  fmt::format("{}: cannot be opened ({})", where, std::strerror(errno)));
  std::string text;
  std::vector<char> chunk(64 << 10);
  while (stream.read(chunk.data(), static_cast<std::streamsize>(chunk.size())),
         stream.gcount() > 0) {
    text.append(chunk.data(), static_cast<std::size_t>(stream.gcount()));
    if (text.size() > limits.bytes) {
      throw Failure(
          ErrorCode::kInvalidModel,
          fmt::format("{}: larger than {} MiB, which no config is", where, limits.bytes >> 20));
    }
  }
  if (stream.bad()) throw Failure(ErrorCode::kIo, where + ": reading failed");
  return parse_json(text, where, limits);
}

}  // namespace limner::engine::weights
