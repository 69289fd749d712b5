// How a prompt is read and turned into what the model sees.
#pragma once

namespace limner::contract {

// kA1111: (word:1.3), [word], BREAK, AND, [from:to:when], [a|b], <lora:name:weight>.
// kCompel: word++, (words)1.2, ("a", "b").and(1, 2), .blend(). kPlain: text, no marks.
enum class PromptSyntax { kA1111, kCompel, kPlain };

// kChunk: any length, 75 tokens at a time. kTruncate: the first 75 tokens, as diffusers does.
enum class LongPrompt { kChunk, kTruncate };

// What a weight does to the encoder's states. kA1111: multiplies them, then the chunk's mean is
// restored. kLpw: moves them from the end token's state (diffusers' long-prompt community
// pipeline). kCompel: moves them from the empty prompt's; below 1, towards the prompt without the
// words (the compel library).
enum class Weighting { kA1111, kLpw, kCompel };

struct PromptOptions {
  PromptSyntax syntax = PromptSyntax::kA1111;
  LongPrompt long_prompt = LongPrompt::kChunk;
  Weighting weighting = Weighting::kA1111;
  bool operator==(const PromptOptions&) const = default;
};

}  // namespace limner::contract
