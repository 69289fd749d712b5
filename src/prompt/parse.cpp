#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/utf8.h"
#include "prompt/a1111_attention.h"
#include "prompt/a1111_schedule.h"
#include "prompt/compel_syntax.h"
#include "prompt/parsed_prompt.h"
#include "prompt/source_text.h"

namespace limner::prompt {
namespace {

using contract::PromptSyntax;

// Bytes of all texts that one prompt's schedules may make.
constexpr std::size_t kMostScheduledBytes = std::size_t{16} << 20;

// A tag's parts between colons: name, text encoder's weight, UNet's weight; the weights also as
// te=0.5 and unet=0.5. One weight counts for both.
LoraTag read_tag(const SourceText& inside) {
  LoraTag tag;
  std::size_t begin = 0;
  int position = 0;
  bool unet_given = false;
  while (begin <= inside.size()) {
    const std::size_t end = std::min(inside.text().find(':', begin), inside.size());
    std::string_view part = std::string_view(inside.text()).substr(begin, end - begin);
    std::size_t number = begin;
    const auto named = [&](std::string_view name) {
      if (!part.starts_with(name)) return false;
      part.remove_prefix(name.size());
      number += name.size();
      return true;
    };
    const bool unet = named("unet=");
    const bool text_encoder = !unet && named("te=");
    if (position == 0) {
      tag.name = std::string(part);
    } else {
      const double weight = read_weight(part, inside.offset(number));
      if (unet || (position == 2 && !text_encoder)) {
        tag.unet_weight = weight;
        unet_given = true;
      } else if (text_encoder || position == 1) {
        tag.text_encoder_weight = weight;
        if (!unet_given) tag.unet_weight = weight;
      } else {
        throw SyntaxError{inside.offset(begin), "a lora tag has a name and at most two weights"};
      }
    }
    ++position;
    begin = end + 1;
  }
  if (tag.name.empty()) throw SyntaxError{inside.offset(0), "a lora tag needs a name"};
  return tag;
}

// Cuts <lora:...> (and its older name <lyco:...>) out of the text.
SourceText take_tags(const SourceText& source, std::vector<LoraTag>& tags) {
  const std::string& text = source.text();
  SourceText rest;
  std::size_t done = 0;
  for (std::size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at + 1)) {
    const std::string_view here = std::string_view(text).substr(at);
    const bool adapter = here.starts_with("<lora:") || here.starts_with("<lyco:");
    const bool hypernetwork = here.starts_with("<hypernet:");
    if (!adapter && !hypernetwork) continue;
    if (hypernetwork) throw SyntaxError{source.offset(at), "hypernetworks are not supported"};
    const std::size_t end = text.find('>', at);
    if (end == std::string::npos) {
      throw SyntaxError{source.offset(at), "this tag is never closed with '>'"};
    }
    tags.push_back(read_tag(source.slice(at + std::string_view("<lora:").size(), end)));
    rest.append(source, done, at);
    done = end + 1;
    at = end;
  }
  rest.append(source, done, text.size());
  return rest;
}

struct Side {
  SourceText text;
  double weight = 1.0;
};

// [+-] and digits with at most one point.
bool is_plain_number(std::string_view text) {
  if (!text.empty() && (text.front() == '+' || text.front() == '-')) text.remove_prefix(1);
  const bool digits = text.find_first_of("0123456789") != std::string_view::npos;
  return digits && text.find_first_not_of("0123456789.") == std::string_view::npos &&
         std::count(text.begin(), text.end(), '.') <= 1;
}

// "text :0.5" at the end of a side of AND: cuts the weight off.
void take_weight(Side& side) {
  const std::string& text = side.text.text();
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) return;
  std::size_t begin = colon + 1, end = text.size();
  while (begin < end && is_space(text[begin])) ++begin;
  while (end > begin && is_space(text[end - 1])) --end;
  const std::string_view number = std::string_view(text).substr(begin, end - begin);
  if (!is_plain_number(number)) return;
  side.weight = read_weight(number, side.text.offset(begin));
  side.text = side.text.slice(0, colon);
}

std::vector<Side> split_at_and(const SourceText& text) {
  std::vector<Side> sides;
  std::size_t done = 0;
  for_each_whole_word(text.text(), "AND", [&](std::size_t begin, std::size_t end) {
    sides.push_back({text.slice(done, begin)});
    done = end;
  });
  sides.push_back({text.slice(done, text.size())});
  // One text alone keeps a number at its end: "in 16:9".
  if (sides.size() > 1) std::for_each(sides.begin(), sides.end(), take_weight);
  return sides;
}

Text one_passage(Passage passage, std::string source) {
  return {{Part{{std::move(passage)}, {1.0}, true, 1.0}}, std::move(source)};
}

ParsedPrompt parse_a1111(std::string_view typed, const ParseOptions& options) {
  ParsedPrompt prompt;
  const SourceText text = take_tags(SourceText(typed), prompt.loras);
  std::map<std::string, std::size_t> known;
  std::size_t bytes = 0;
  const auto index_of = [&](const SourceText& resolved) {
    const auto [at, fresh] = known.try_emplace(resolved.text(), prompt.texts.size());
    if (fresh) {
      bytes += resolved.size();
      if (bytes > kMostScheduledBytes) {
        throw SyntaxError{0, fmt::format("its schedules make more than {} different texts, {} MiB "
                                         "in all, which is too much",
                                         prompt.texts.size(), kMostScheduledBytes >> 20)};
      }
      prompt.texts.push_back(one_passage(parse_a1111_attention(resolved), resolved.text()));
    }
    return at->second;
  };
  const std::vector<Side> sides = options.negative ? std::vector<Side>{{text}} : split_at_and(text);
  for (const Side& side : sides) {
    Conjunct conjunct{side.weight, {}};
    resolve_a1111_schedule(side.text, options.steps,
                           [&](std::int64_t last, const SourceText& resolved) {
                             const std::size_t index = index_of(resolved);
                             auto& schedule = conjunct.schedule;
                             if (!schedule.empty() && schedule.back().text == index) {
                               schedule.back().until_step = last;
                             } else {
                               schedule.push_back({last, index});
                             }
                           });
    prompt.conjuncts.push_back(std::move(conjunct));
  }
  return prompt;
}

ParsedPrompt one_text(Text text, std::int64_t steps) {
  return {{std::move(text)}, {{1.0, {{steps, 0}}}}, {}};
}

ParsedPrompt parsed_compel(std::string_view typed, std::int64_t steps) {
  CompelPrompt compel = parse_compel(SourceText(typed));
  ParsedPrompt prompt = one_text(std::move(compel.text), steps);
  prompt.loras = std::move(compel.loras);
  return prompt;
}

ParsedPrompt read(std::string_view text, const ParseOptions& options) {
  switch (options.syntax) {
    case PromptSyntax::kA1111:
      return parse_a1111(text, options);
    case PromptSyntax::kCompel:
      return parsed_compel(text, options.steps);
    case PromptSyntax::kPlain:
      break;
  }
  return one_text(one_passage({{std::string(text)}}, std::string(text)), options.steps);
}

}  // namespace

Result<ParsedPrompt> parse(std::string_view text, const ParseOptions& options) {
  LIMNER_CHECK(options.steps >= 1, "a schedule needs a step");
  if (const auto valid = decode_utf8(text); !valid.ok()) return valid.error();
  try {
    ParsedPrompt prompt = read(text, options);
    if (options.negative && !prompt.loras.empty()) {
      throw SyntaxError{0, fmt::format("the adapter '{}' is asked for here; that belongs into the "
                                       "prompt",
                                       prompt.loras.front().name.substr(0, 64))};
    }
    return prompt;
  } catch (const SyntaxError& error) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}, {}: {}", options.negative ? "negative prompt" : "prompt",
                             position_of(text, error.offset), error.what)};
  }
}

}  // namespace limner::prompt
