#include "engine/pipelines/prompt_encoder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

namespace limner::engine::pipelines {
namespace {

using contract::PromptSyntax;
using contract::Weighting;

// One text's states, one tensor [1, L, C] per encoder, not yet of one length.
struct EncodedText {
  std::vector<at::Tensor> states;
  at::Tensor pooled;
};

// The encoding of one request.
class Run {
 public:
  Run(const std::vector<const TextEncoder*>& encoders, const PromptTraits& traits,
      const TextualInversions& inversions, const PromptText& asked, const TextAdapters& adapters)
      : traits_(traits), asked_(asked) {
    const nn::RowAdapters* const adapters_of[] = {&adapters.text_encoder, &adapters.text_encoder_2};
    for (std::size_t i = 0; i < encoders.size(); ++i) {
      const auto add = [&](std::vector<PassageEncoder>& side, std::int64_t clip_skip) {
        const auto state = [encoder = encoders[i], pick = traits.state,
                            clip_skip](const models::ClipTextOutput& output) {
          return pick(encoder->model(), output, clip_skip);
        };
        side.emplace_back(*encoders[i], PassageEncoder::Settings{asked.options, state,
                                                                 adapters_of[i], &inversions, i});
      };
      add(positive_, asked.clip_skip);
      add(negative_, 0);  // as in diffusers, clip skip leaves the negative prompt alone
    }
    least_tokens_.resize(encoders.size());
  }

  EncodedPrompt encode() {
    const prompt::ParsedPrompt positive = parse(asked_.positive, /*negative=*/false);
    const prompt::ParsedPrompt negative = parse(asked_.negative, /*negative=*/true);
    // The long-prompt pipeline encodes an empty negative prompt like any other.
    const bool zeros = traits_.zeros_for_empty_negative && asked_.negative.empty() &&
                       asked_.options.weighting != Weighting::kLpw;
    if (asked_.options.weighting == Weighting::kLpw) {
      count_tokens(positive);
      count_tokens(negative);
    }
    std::vector<EncodedText> texts = encode_all(positive, positive_);
    std::vector<EncodedText> against;
    if (!zeros) against = encode_all(negative, negative_);
    bring_to_one_length(texts, against);

    EncodedPrompt encoded;
    encoded.warnings = std::move(warnings_);
    const std::vector<SharedConditioning> for_it = join(texts);
    for (const prompt::Conjunct& conjunct : positive.conjuncts) {
      encoded.conjuncts.push_back({conjunct.weight, schedule(conjunct.schedule, for_it)});
    }
    if (zeros) {
      Conditioning nothing = *for_it.front();
      nothing.prompt_embeds = at::zeros_like(nothing.prompt_embeds);
      if (nothing.pooled_prompt_embeds.defined()) {
        nothing.pooled_prompt_embeds = at::zeros_like(nothing.pooled_prompt_embeds);
      }
      encoded.negative.push_back(
          {asked_.steps, std::make_shared<const Conditioning>(std::move(nothing))});
    } else {
      encoded.negative = schedule(negative.conjuncts.front().schedule, join(against));
    }
    return encoded;
  }

 private:
  using SharedConditioning = std::shared_ptr<const Conditioning>;

  prompt::ParsedPrompt parse(const std::string& text, bool negative) const {
    return prompt::parse(
               text, {.syntax = asked_.options.syntax, .steps = asked_.steps, .negative = negative})
        .value_or_throw();
  }

  void count_tokens(const prompt::ParsedPrompt& parsed) {
    for (const prompt::Text& text : parsed.texts) {
      for (const prompt::Part& part : text.parts) {
        for (const prompt::Passage& passage : part.passages) {
          for (std::size_t i = 0; i < positive_.size(); ++i) {
            least_tokens_[i] = std::max(least_tokens_[i], positive_[i].count_tokens(passage));
          }
        }
      }
    }
  }

  std::vector<EncodedText> encode_all(const prompt::ParsedPrompt& parsed,
                                      const std::vector<PassageEncoder>& encoders) {
    std::vector<EncodedText> texts;
    for (const prompt::Text& text : parsed.texts) {
      EncodedText encoded;
      for (std::size_t i = 0; i < encoders.size(); ++i) {
        std::vector<at::Tensor> parts;
        at::Tensor pooled;
        for (const prompt::Part& part : text.parts) {
          parts.push_back(encode_part(part, encoders[i], i, pooled));
        }
        encoded.states.push_back(at::cat(parts, 1));
        if (traits_.pooled && i + 1 == encoders.size()) encoded.pooled = pooled;
      }
      if (encoded.pooled.defined() && pools_the_source()) {
        std::vector<std::string> ignored;
        encoded.pooled = truncating(encoders.back()).encode({{text.source}}, 0, ignored).pooled;
      }
      texts.push_back(std::move(encoded));
    }
    return texts;
  }

  // compel pools the prompt as typed, marks and all, cut after 75 tokens.
  bool pools_the_source() const {
    return asked_.options.weighting == Weighting::kCompel &&
           asked_.options.syntax == PromptSyntax::kCompel;
  }

  static PassageEncoder truncating(const PassageEncoder& encoder) {
    PassageEncoder::Settings settings = encoder.settings();
    settings.options.long_prompt = contract::LongPrompt::kTruncate;
    return {encoder.encoder(), std::move(settings)};
  }

  // `pooled` becomes the first passage's if it is not yet defined (the last one's with kLpw).
  at::Tensor encode_part(const prompt::Part& part, const PassageEncoder& encoder,
                         std::size_t number, at::Tensor& pooled) {
    std::vector<at::Tensor> states;
    for (const prompt::Passage& passage : part.passages) {
      const EncodedPassage encoded = encoder.encode(passage, least_tokens_[number], warnings_);
      if (!pooled.defined() || asked_.options.weighting == Weighting::kLpw) pooled = encoded.pooled;
      states.push_back(encoded.states);
    }
    at::Tensor state = states.front();
    if (states.size() > 1) {
      const std::int64_t length = longest(states);
      double total = 0;
      at::Tensor sum;
      for (std::size_t i = 0; i < states.size(); ++i) {
        const double weight = part.blend_weights[i];
        const at::Tensor term = padded(states[i], length, encoder, number).to(at::kFloat) * weight;
        sum = sum.defined() ? sum + term : term;
        total += weight;
      }
      state = (part.normalized ? sum / total : sum).to(states.front().scalar_type());
    }
    if (part.weight == 1.0) return state;
    const at::Tensor nothing = empty_block(encoder, number);
    const at::Tensor empty = padded(nothing, state.size(1), encoder, number).to(at::kFloat);
    return (empty + (state.to(at::kFloat) - empty) * part.weight).to(state.scalar_type());
  }

  at::Tensor empty_block(const PassageEncoder& encoder, std::size_t number) const {
    std::vector<std::string> ignored;
    return encoder.encode({prompt::Fragment{}}, least_tokens_[number], ignored).states;
  }

  static std::int64_t longest(const std::vector<at::Tensor>& states) {
    std::int64_t length = 0;
    for (const at::Tensor& state : states) length = std::max(length, state.size(1));
    return length;
  }

  // Empty chunks behind the states until they are `length` long.
  at::Tensor padded(const at::Tensor& states, std::int64_t length, const PassageEncoder& encoder,
                    std::size_t number) const {
    if (states.size(1) == length) return states;
    const at::Tensor empty = empty_block(encoder, number);
    std::vector<at::Tensor> all = {states};
    for (std::int64_t now = states.size(1); now < length; now += empty.size(1)) {
      all.push_back(empty);
    }
    const at::Tensor joined = at::cat(all, 1);
    if (joined.size(1) != length) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("the model's tokenizers cut this prompt into {} and {} tokens, "
                                "which do not go together",
                                joined.size(1), length));
    }
    return joined;
  }

  void bring_to_one_length(std::vector<EncodedText>& texts, std::vector<EncodedText>& against) {
    std::int64_t length = 0;
    for (const auto* side : {&texts, &against}) {
      for (const EncodedText& text : *side) length = std::max(length, longest(text.states));
    }
    const auto pad = [&](std::vector<EncodedText>& side, std::vector<PassageEncoder>& encoders) {
      for (EncodedText& text : side) {
        for (std::size_t i = 0; i < encoders.size(); ++i) {
          text.states[i] = padded(text.states[i], length, encoders[i], i);
        }
      }
    };
    pad(texts, positive_);
    pad(against, negative_);
  }

  static std::vector<SharedConditioning> join(const std::vector<EncodedText>& texts) {
    std::vector<SharedConditioning> joined;
    for (const EncodedText& text : texts) {
      joined.push_back(std::make_shared<const Conditioning>(Conditioning{
          text.states.size() == 1 ? text.states.front() : at::cat(text.states, -1), text.pooled}));
    }
    return joined;
  }

  static ConditioningSchedule schedule(const std::vector<prompt::Span>& spans,
                                       const std::vector<SharedConditioning>& texts) {
    ConditioningSchedule schedule;
    for (const prompt::Span& span : spans) schedule.push_back({span.until_step, texts[span.text]});
    return schedule;
  }

  const PromptTraits& traits_;
  const PromptText& asked_;
  std::vector<PassageEncoder> positive_, negative_;  // one per text encoder
  std::vector<std::size_t> least_tokens_;            // one per text encoder
  std::vector<std::string> warnings_;
};

std::vector<TextualInversions::Encoder> inversion_encoders(
    const std::vector<const TextEncoder*>& encoders) {
  std::vector<TextualInversions::Encoder> answer;
  for (const TextEncoder* encoder : encoders) {
    answer.push_back({answer.empty() ? "text_encoder" : "text_encoder_2", encoder->hidden_size(),
                      encoder->tokenizer().max_length() - 2});
  }
  return answer;
}

}  // namespace

PromptEncoder::PromptEncoder(std::vector<const TextEncoder*> encoders, const PromptTraits& traits,
                             const LoadRequest& request)
    : encoders_(std::move(encoders)),
      traits_(traits),
      inversions_(request.embeddings, inversion_encoders(encoders_), request.placement) {}

EncodedPrompt PromptEncoder::encode(const PromptText& text, const TextAdapters& adapters) const {
  return Run(encoders_, traits_, inversions_, text, adapters).encode();
}

}  // namespace limner::engine::pipelines
