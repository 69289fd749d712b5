#include "runpod/volume/env_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>

namespace limner::runpod {
namespace {

constexpr std::size_t kLargestFile = std::size_t{1} << 20;

std::string_view trimmed(std::string_view text) {
  const auto space = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

bool is_name(std::string_view text) {
  const auto fits = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  };
  return !text.empty() && std::all_of(text.begin(), text.end(), fits) &&
         std::isdigit(static_cast<unsigned char>(text.front())) == 0;
}

// One line; its messages are for after "FILE:LINE: ".
class Line {
 public:
  explicit Line(std::string_view text) : text_(trimmed(text)) {}

  bool is_empty() const { return text_.empty() || text_.front() == '#'; }

  std::pair<std::string, std::string> read() const {
    std::string_view left = text_;
    if (left.starts_with("export ")) left = trimmed(left.substr(7));
    const auto equals = left.find('=');
    if (equals == std::string_view::npos) refuse("want NAME=VALUE");
    const std::string_view name = left.substr(0, equals);
    if (!is_name(name)) refuse("a name has letters, digits and '_' only, with no space before '='");
    return {std::string(name), value(trimmed(left.substr(equals + 1)))};
  }

 private:
  [[noreturn]] static void refuse(const std::string& why) {
    throw Failure(ErrorCode::kInvalidArgument, why);
  }

  static std::string value(std::string_view text) {
    if (text.starts_with('\'') || text.starts_with('"')) return quoted(text);
    if (const auto comment = text.find(" #"); comment != std::string_view::npos)
      text = trimmed(text.substr(0, comment));
    if (text.starts_with('#')) return "";
    if (text.find_first_of("'\"") != std::string_view::npos)
      refuse("a quote inside a value: put the whole value into quotes");
    return std::string(text);
  }

  static std::string quoted(std::string_view text) {
    const char quote = text.front();
    std::string out;
    for (std::size_t i = 1; i < text.size(); ++i) {
      if (text[i] == quote) {
        const std::string_view rest = trimmed(text.substr(i + 1));
        if (!rest.empty() && rest.front() != '#') refuse("there is more after the closing quote");
        return out;
      }
      out += quote == '"' && text[i] == '\\' ? escaped(text, ++i) : text[i];
    }
    refuse("the quote is not closed on this line");
  }

  static char escaped(std::string_view text, std::size_t at) {
    const char c = at < text.size() ? text[at] : '\0';
    if (c == 'n') return '\n';
    if (c == '\\' || c == '"' || c == '$') return c;
    refuse("after a backslash want one of \\ \" n $");
  }

  std::string_view text_;
};

}  // namespace

Result<std::map<std::string, std::string>> parse_env_file(std::string_view text,
                                                          const std::string& file) {
  std::map<std::string, std::string> values;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = std::min(text.find('\n'), text.size());
    const Line line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.is_empty()) continue;
    try {
      auto [name, value] = line.read();
      if (value.find('\0') != std::string::npos)
        throw Failure(ErrorCode::kInvalidArgument, "a value must not hold a zero byte");
      if (!values.emplace(name, std::move(value)).second)
        throw Failure(ErrorCode::kInvalidArgument, fmt::format("{} is set already", name));
    } catch (const Failure& failure) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}:{}: {}", file, number, failure.error().message)};
    }
  }
  return values;
}

Result<std::map<std::string, std::string>> read_env_file(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error))
    return Error{ErrorCode::kNotFound, fmt::format("{}: there is no such file", file.string())};
  std::ifstream in(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in || text.size() > kLargestFile)
    return Error{ErrorCode::kIo,
                 fmt::format("{}: cannot be read, or is no .env file", file.string())};
  return parse_env_file(text, file.string());
}

}  // namespace limner::runpod
