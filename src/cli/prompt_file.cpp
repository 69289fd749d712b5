#include "cli/prompt_file.h"

#include <fmt/format.h>

#include <fstream>
#include <iostream>
#include <string_view>

namespace limner::cli {
namespace {

constexpr std::size_t kMostPrompts = 1000;
constexpr std::size_t kMostBytes = std::size_t{16} << 20;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

std::string_view trimmed(std::string_view line) {
  constexpr std::string_view kSpaces = " \t\r";
  const auto begin = line.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return line.substr(begin, line.find_last_not_of(kSpaces) - begin + 1);
}

Result<std::vector<PromptLine>> lines_of(std::istream& in, const std::string& name) {
  std::vector<PromptLine> prompts;
  std::size_t bytes = 0;
  std::string line;
  for (std::size_t number = 1; std::getline(in, line); ++number) {
    bytes += line.size();
    std::string_view text = line;
    if (number == 1 && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    text = trimmed(text);
    if (!text.empty()) prompts.push_back({std::string(text), number});
    if (prompts.size() > kMostPrompts || bytes > kMostBytes) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("{} has more than {} prompts or 16 MiB of text", name, kMostPrompts)};
    }
  }
  if (in.bad()) return Error{ErrorCode::kIo, fmt::format("cannot read {}", name)};
  if (prompts.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} holds no prompt; want one per line", name)};
  }
  return prompts;
}

}  // namespace

Result<std::vector<PromptLine>> read_prompt_file(const std::filesystem::path& file) {
  if (file == "-") return lines_of(std::cin, "standard input");
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{} is a folder; want a text file with one prompt per line", file.string())};
  }
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    const bool there = std::filesystem::exists(file, ignored);
    return Error{there ? ErrorCode::kIo : ErrorCode::kNotFound,
                 fmt::format("{} {}", there ? "cannot read" : "there is no file", file.string())};
  }
  return lines_of(in, file.string());
}

}  // namespace limner::cli
