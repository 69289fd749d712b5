#include "prompt/negative_section.h"

#include <algorithm>
#include <optional>

#include "prompt/source_text.h"

namespace limner::prompt {
namespace {

struct Mark {
  std::size_t begin = 0;
  std::size_t end = 0;
};

std::size_t skip_spaces(std::string_view text, std::size_t at) {
  while (at < text.size() && is_space(text[at])) ++at;
  return at;
}

bool same_letters(std::string_view text, std::string_view lower) {
  return text.size() >= lower.size() &&
         std::equal(lower.begin(), lower.end(), text.begin(),
                    [](char want, char got) { return want == got || want - 'a' + 'A' == got; });
}

// "##", spaces, "negative", perhaps "prompt", ":".
std::optional<Mark> heading_at(std::string_view text, std::size_t at) {
  std::size_t end = at;
  while (end < text.size() && text[end] == '#') ++end;
  if (end - at < 2) return std::nullopt;
  end = skip_spaces(text, end);
  for (const std::string_view word : {"negative", "prompt"}) {
    if (!same_letters(text.substr(end), word)) {
      if (word == "negative") return std::nullopt;
      continue;
    }
    end = skip_spaces(text, end + word.size());
  }
  if (end == text.size() || text[end] != ':') return std::nullopt;
  return Mark{at, end + 1};
}

// "--no" as a word of its own.
std::optional<Mark> option_at(std::string_view text, std::size_t at) {
  constexpr std::string_view kOption = "--no";
  const std::size_t end = at + kOption.size();
  const bool apart = at == 0 || is_space(text[at - 1]);
  if (!text.substr(at).starts_with(kOption) || !apart) return std::nullopt;
  if (end < text.size() && !is_space(text[end])) return std::nullopt;
  return Mark{at, end};
}

std::optional<Mark> next_mark(std::string_view text, std::size_t from) {
  for (std::size_t at = text.find_first_of("#-", from); at != std::string_view::npos;
       at = text.find_first_of("#-", at + 1)) {
    if (at > 0 && text[at] == '#' && text[at - 1] == '#' && at > from) continue;
    if (const auto mark = text[at] == '#' ? heading_at(text, at) : option_at(text, at)) return mark;
  }
  return std::nullopt;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

PromptPair extract_negative(std::string_view prompt, std::string_view negative) {
  std::optional<Mark> mark = next_mark(prompt, 0);
  if (!mark) return {std::string(prompt), std::string(negative)};
  PromptPair pair{std::string(trimmed(prompt.substr(0, mark->begin))), std::string(negative)};
  while (mark) {
    const std::optional<Mark> next = next_mark(prompt, mark->end);
    const std::size_t end = next ? next->begin : prompt.size();
    const std::string_view section = trimmed(prompt.substr(mark->end, end - mark->end));
    if (!section.empty()) {
      if (!pair.negative.empty()) pair.negative += ", ";
      pair.negative += section;
    }
    mark = next;
  }
  return pair;
}

}  // namespace limner::prompt
