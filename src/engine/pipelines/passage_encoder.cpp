#include "engine/pipelines/passage_encoder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace limner::engine::pipelines {
namespace {

using contract::LongPrompt;
using contract::Weighting;
using prompt::TokenChunk;

// A text of readable length: the middle of a long one is left out, never half a UTF-8 character.
std::string elided(const std::string& text) {
  constexpr std::size_t kShown = 2000;
  if (text.size() <= kShown) return text;
  const auto continues = [&](std::size_t at) {
    return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
  };
  std::size_t head = kShown / 2, tail = text.size() - kShown / 2;
  while (continues(head)) --head;
  while (continues(tail)) ++tail;
  return text.substr(0, head) + " [...] " + text.substr(tail);
}

bool has_weights(const TokenChunk& chunk) {
  return std::any_of(chunk.weights.begin(), chunk.weights.end(),
                     [](double weight) { return weight != 1.0; });
}

// [1, L, 1] float32, on the device of `like`.
at::Tensor weights_of(const TokenChunk& chunk, const at::Tensor& like) {
  return at::tensor(chunk.weights, at::kDouble).to(like.device(), at::kFloat).view({1, -1, 1});
}

// A1111's emphasis: multiply, then bring the chunk's mean back to what it was.
at::Tensor weigh_a1111(const at::Tensor& state, const TokenChunk& chunk) {
  if (!has_weights(chunk)) return state;
  const at::Tensor wide = state.to(at::kFloat);
  const at::Tensor weighted = wide * weights_of(chunk, wide);
  return (weighted * (wide.mean() / weighted.mean())).to(state.scalar_type());
}

// diffusers' lpw_stable_diffusion_xl.py: towards or away from the state of the block's last token.
// Weights pass through float16, as they do there.
at::Tensor weigh_lpw(const at::Tensor& state, const TokenChunk& chunk) {
  if (!has_weights(chunk)) return state;
  const at::Tensor wide = state.to(at::kFloat);
  const at::Tensor weights = weights_of(chunk, wide).to(at::kHalf).to(at::kFloat);
  const at::Tensor end = wide.narrow(1, wide.size(1) - 1, 1);
  return at::where(weights == 1.0, wide, end + (wide - end) * weights).to(state.scalar_type());
}

// How strongly compel mixes in the prompt without a fragment of this weight: 0 at 1, without bound
// towards 0.
double lerp_weight(double weight) {
  return std::tan((1.0 - std::max(1e-5, weight)) * std::numbers::pi / 2);
}

}  // namespace

PassageEncoder::PassageEncoder(const TextEncoder& encoder, Settings settings)
    : encoder_(encoder), settings_(std::move(settings)) {}

std::vector<TokenChunk> PassageEncoder::chunks(const prompt::Passage& passage,
                                               std::size_t least_tokens,
                                               std::vector<std::string>& warnings) const {
  const prompt::ClipTokenizer& tokenizer = encoder_.tokenizer();
  const std::vector<prompt::PassageToken> tokens =
      prompt::tokenize(tokenizer, passage, settings_.inversions->names(settings_.encoder))
          .value_or_throw();
  if (settings_.options.long_prompt == LongPrompt::kChunk) {
    const Weighting weighting = settings_.options.weighting;
    return prompt::cut_into_chunks(
        tokenizer, tokens,
        {.cut = weighting, .padded = weighting != Weighting::kLpw, .least_tokens = least_tokens});
  }
  prompt::Truncated truncated = prompt::truncate(tokenizer, passage, tokens);
  if (!truncated.cut.empty()) {
    std::string warning =
        fmt::format("the prompt is longer than {} tokens; this part was cut: \"{}\"",
                    tokenizer.max_length() - 2, elided(truncated.cut));
    if (std::find(warnings.begin(), warnings.end(), warning) == warnings.end()) {
      warnings.push_back(std::move(warning));
    }
  }
  return {std::move(truncated.chunk)};
}

std::size_t PassageEncoder::count_tokens(const prompt::Passage& passage) const {
  std::vector<std::string> ignored;
  const std::vector<TokenChunk> all = chunks(passage, 0, ignored);
  return (all.size() - 1) * (encoder_.tokenizer().max_length() - 2) + all.back().ids.size() - 2;
}

models::ClipTextOutput PassageEncoder::forward(const TokenChunk& chunk, at::Tensor attended) const {
  models::ClipTextChanges changes;
  changes.attended = std::move(attended);
  for (const prompt::Insertion& insertion : chunk.insertions) {
    changes.insertions.push_back(
        {static_cast<std::int64_t>(insertion.position),
         settings_.inversions->vectors(insertion.embedding, settings_.encoder)
             .to(encoder_.device())});
  }
  return encoder_.forward(chunk.ids, *settings_.adapters, changes);
}

EncodedPassage PassageEncoder::encode(const prompt::Passage& passage, std::size_t least_tokens,
                                      std::vector<std::string>& warnings) const {
  const std::vector<TokenChunk> all = chunks(passage, least_tokens, warnings);
  const Weighting weighting = settings_.options.weighting;
  EncodedPassage encoded;
  std::vector<at::Tensor> states;  // of [1, n, C]
  for (const TokenChunk& chunk : all) {
    const models::ClipTextOutput output = forward(chunk);
    if (!encoded.pooled.defined() || weighting == Weighting::kLpw) encoded.pooled = output.pooled;
    const at::Tensor state = settings_.state(output);
    states.push_back(weighting == Weighting::kA1111 ? weigh_a1111(state, chunk)
                     : weighting == Weighting::kLpw ? weigh_lpw(state, chunk)
                                                    : moved_from_empty(state, chunk));
  }
  encoded.states =
      weighting == Weighting::kCompel ? weigh_compel(passage, all, states) : at::cat(states, 1);
  return encoded;
}

const at::Tensor& PassageEncoder::empty_state() const {
  if (!empty_state_.defined()) {
    empty_state_ =
        settings_.state(forward(prompt::cut_into_chunks(encoder_.tokenizer(), {}, {}).front()));
  }
  return empty_state_;
}

at::Tensor PassageEncoder::moved_from_empty(const at::Tensor& state,
                                            const TokenChunk& chunk) const {
  if (!has_weights(chunk)) return state;
  const at::Tensor wide = state.to(at::kFloat), empty = empty_state().to(at::kFloat);
  const at::Tensor weights = weights_of(chunk, wide);
  return at::where(weights == 1.0, wide, empty + (wide - empty) * weights).to(state.scalar_type());
}

// The chunk's state when nothing may look at places first..last (counted over all chunks) but the
// chunk's own first and last; undefined when it has none of them.
at::Tensor PassageEncoder::without(const TokenChunk& chunk, std::int64_t offset, std::int64_t first,
                                   std::int64_t last) const {
  const auto length = static_cast<std::int64_t>(chunk.ids.size());
  const std::int64_t begin = std::max<std::int64_t>(first - offset, 1);
  const std::int64_t end = std::min(last - offset + 1, length - 1);
  if (begin >= end) return {};
  at::Tensor attended = at::ones({1, length}, at::kBool);
  attended.narrow(1, begin, end - begin).fill_(false);
  const at::Tensor state = settings_.state(forward(chunk, attended.to(encoder_.device())));
  return moved_from_empty(state, chunk);
}

// compel's embeddings_provider: the weighted states, mixed with those of the prompt without each
// fragment that weighs less than 1. A chunk that the fragment is not in is as it was.
at::Tensor PassageEncoder::weigh_compel(const prompt::Passage& passage,
                                        const std::vector<TokenChunk>& chunks,
                                        const std::vector<at::Tensor>& states) const {
  struct Places {
    std::int64_t first = -1, last = -1;
  };
  std::vector<Places> of_fragment(passage.size());
  std::vector<std::int64_t> offsets;
  std::int64_t length = 0;
  for (const TokenChunk& chunk : chunks) {
    offsets.push_back(length);
    for (const std::size_t fragment : chunk.fragments) {
      if (fragment != prompt::kNoFragment) {
        Places& places = of_fragment[fragment];
        if (places.first < 0) places.first = length;
        places.last = length;
      }
      ++length;
    }
  }
  double total = 1.0;
  std::vector<double> unmixed(chunks.size(), 1.0);  // the weight of each chunk's own state
  std::vector<at::Tensor> sums(chunks.size());
  for (std::size_t i = 0; i < passage.size(); ++i) {
    const auto [first, last] = of_fragment[i];
    if (passage[i].weight >= 1.0 || first < 0) continue;
    const double weight = lerp_weight(passage[i].weight);
    total += weight;
    for (std::size_t c = 0; c < chunks.size(); ++c) {
      const at::Tensor state = without(chunks[c], offsets[c], first, last);
      if (!state.defined()) {
        unmixed[c] += weight;
        continue;
      }
      const at::Tensor term = state.to(at::kFloat) * weight;
      sums[c] = sums[c].defined() ? sums[c] + term : term;
    }
  }
  std::vector<at::Tensor> mixed = states;
  for (std::size_t c = 0; c < chunks.size(); ++c) {
    if (!sums[c].defined()) continue;
    mixed[c] =
        ((states[c].to(at::kFloat) * unmixed[c] + sums[c]) / total).to(states[c].scalar_type());
  }
  return at::cat(mixed, 1);
}

}  // namespace limner::engine::pipelines
