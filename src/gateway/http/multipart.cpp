#include "gateway/http/multipart.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/utf8.h"

namespace limner::gateway::http {

namespace {

[[noreturn]] void refuse(std::string message) {
  throw Failure(ErrorCode::kInvalidArgument, "[form] " + std::move(message));
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

std::string_view trim(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

// "form-data; name=\"a\"; filename=\"b\"": the word before the first ';', and what follows.
struct Value {
  std::string word;
  std::map<std::string, std::string> parameters;  // names in lower case
};

// Takes a quoted string off the front of `text`. A backslash quotes '"' and '\' only: browsers send
// Windows paths with single ones.
std::string take_quoted(std::string_view& text) {
  std::string taken;
  for (std::size_t i = 1; i < text.size(); ++i) {
    const bool escapes =
        text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '"' || text[i + 1] == '\\');
    if (text[i] == '"') {
      text.remove_prefix(i + 1);
      return taken;
    }
    if (escapes) ++i;
    taken += text[i];
  }
  refuse("a quoted text has no end");
}

Value parse_value(std::string_view text) {
  Value value;
  const std::size_t word = std::min(text.find(';'), text.size());
  value.word = lower(trim(text.substr(0, word)));
  text.remove_prefix(word);
  while (!text.empty()) {
    text = trim(text.substr(1));
    if (text.empty()) break;
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) refuse("a parameter has no value");
    std::string name = lower(trim(text.substr(0, equals)));
    text = trim(text.substr(equals + 1));
    std::string content;
    if (text.starts_with('"')) {
      content = take_quoted(text);
      text = trim(text);
      if (!text.empty() && text[0] != ';') refuse("something follows a quoted text");
    } else {
      const std::size_t end = std::min(text.find(';'), text.size());
      content = trim(text.substr(0, end));
      text.remove_prefix(end);
    }
    if (!value.parameters.emplace(std::move(name), std::move(content)).second)
      refuse("a parameter is given twice");
  }
  return value;
}

std::string boundary_of(std::string_view content_type) {
  const Value value = parse_value(content_type);
  if (value.word != "multipart/form-data")
    refuse(fmt::format("want multipart/form-data, got '{}'", value.word));
  const auto found = value.parameters.find("boundary");
  // RFC 2046, section 5.1.1.
  if (found == value.parameters.end() || found->second.empty() || found->second.size() > 70)
    refuse("want a boundary of 1 to 70 characters");
  return found->second;
}

std::string take_parameter(Value& value, const char* name) {
  const auto found = value.parameters.find(name);
  return found == value.parameters.end() ? std::string() : std::move(found->second);
}

std::string last_segment(std::string filename) {
  const std::size_t slash = filename.find_last_of("/\\");
  return slash == std::string::npos ? filename : filename.substr(slash + 1);
}

FormPart parse_header(std::string_view header) {
  FormPart part;
  bool named = false;
  while (!header.empty()) {
    const std::size_t end = std::min(header.find("\r\n"), header.size());
    const std::string_view line = header.substr(0, end);
    header.remove_prefix(std::min(end + 2, header.size()));
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) refuse("a line of a part's header has no colon");
    const std::string name = lower(line.substr(0, colon));
    if (name == "content-type") part.content_type = trim(line.substr(colon + 1));
    if (name != "content-disposition") continue;
    Value value = parse_value(line.substr(colon + 1));
    if (value.word != "form-data" || named) refuse("want one Content-Disposition: form-data");
    part.name = take_parameter(value, "name");
    part.filename = last_segment(take_parameter(value, "filename"));
    named = true;
  }
  if (part.name.empty()) refuse("a part has no name");
  if (!decode_utf8(part.name).ok() || !decode_utf8(part.filename).ok())
    refuse("the name of a part is not UTF-8");
  return part;
}

std::vector<FormPart> parse(std::string_view content_type, std::string_view body) {
  const std::string delimiter = "\r\n--" + boundary_of(content_type);
  // The first delimiter may stand at the very beginning, without its line end.
  const std::string_view first = std::string_view(delimiter).substr(2);
  if (body.starts_with(first)) {
    body.remove_prefix(first.size());
  } else {
    const std::size_t begin = body.find(delimiter);
    if (begin == std::string_view::npos) refuse("the boundary is not in the body");
    body.remove_prefix(begin + delimiter.size());
  }
  std::vector<FormPart> parts;
  while (!body.starts_with("--")) {
    if (!body.starts_with("\r\n")) refuse("something follows a boundary");
    if (parts.size() == kMostFormParts)
      refuse(fmt::format("want at most {} parts", kMostFormParts));
    const std::size_t header_end = body.substr(0, kMostPartHeader).find("\r\n\r\n");
    if (header_end == std::string_view::npos) refuse("the header of a part has no end");
    if (header_end < 2) refuse("a part has no header");
    FormPart part = parse_header(body.substr(2, header_end - 2));
    body.remove_prefix(header_end + 2);
    const std::size_t end = body.find(delimiter);
    if (end == std::string_view::npos) refuse("a part has no end");
    part.content = body.substr(std::min<std::size_t>(2, end), end - std::min<std::size_t>(2, end));
    body.remove_prefix(end + delimiter.size());
    parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace

Result<std::vector<FormPart>> parse_multipart(std::string_view content_type,
                                              std::string_view body) {
  try {
    return parse(content_type, body);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

}  // namespace limner::gateway::http
