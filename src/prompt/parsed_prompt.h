// A prompt taken apart: what is to be encoded, with which weights, at which steps. Text only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "contract/prompt_options.h"

namespace limner::prompt {

// A run of text of one weight; it is tokenised apart from its neighbours. A break (A1111's BREAK,
// with text "BREAK" and weight -1) ends the chunk of tokens instead.
struct Fragment {
  std::string text;
  double weight = 1.0;
  bool is_break = false;
  bool operator==(const Fragment&) const = default;
};

// Encoded in one go; at least one fragment.
using Passage = std::vector<Fragment>;

// The states of several passages added up by weight; mostly there is one, of weight 1.
struct Part {
  std::vector<Passage> passages;
  std::vector<double> blend_weights;  // one per passage
  bool normalized = true;             // the weights are divided by their sum
  double weight = 1.0;                // away from (above 1) or towards (below) the empty prompt
  bool operator==(const Part&) const = default;
};

// What one conditioning is made of: the parts' states one behind the other.
struct Text {
  std::vector<Part> parts;
  std::string source;  // as written, schedules resolved
};

// From the step after the one before (the first: from step 1) up to and with this one, counted from
// 1 in calls of the model.
struct Span {
  std::int64_t until_step = 0;
  std::size_t text = 0;  // index into ParsedPrompt::texts
};

// One side of an AND: its share of the guidance, and its text over time. The last span ends at the
// last step.
struct Conjunct {
  double weight = 1.0;
  std::vector<Span> schedule;
};

// <lora:name:weight>: an adapter that the prompt asks for.
struct LoraTag {
  std::string name;
  double unet_weight = 1.0;
  double text_encoder_weight = 1.0;
  bool operator==(const LoraTag&) const = default;
};

struct ParsedPrompt {
  std::vector<Text> texts;  // each different one once
  std::vector<Conjunct> conjuncts;
  std::vector<LoraTag> loras;  // in order; already cut out of the texts
};

struct ParseOptions {
  contract::PromptSyntax syntax = contract::PromptSyntax::kA1111;
  std::int64_t steps = 1;  // calls of the model: what a fraction in [from:to:0.5] is of
  // A negative prompt is one text: AND is a word in it, as in A1111, and it asks for no adapters.
  bool negative = false;
};

// Weights beyond this, and what is not a number, are refused.
inline constexpr double kLargestWeight = 1000.0;
// Open brackets at one place; more are refused.
inline constexpr std::size_t kMostNested = 500;

// kInvalidArgument with line and column (counted in characters from 1) for what cannot be read.
// Unbalanced brackets are text in kA1111; so is what merely looks like a schedule.
Result<ParsedPrompt> parse(std::string_view text, const ParseOptions& options);

}  // namespace limner::prompt
